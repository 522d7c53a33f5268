"""Models that have no preset: the generic rule is for them."""

from __future__ import annotations

from .tree import Tree, vary

# fmt: off
_KANDINSKY5 = Tree(None, 2.0, dict(
    image_model="kandinsky5", model_dim=1792, ff_dim=7168, time_dim=512, visual_embed_dim=132,
    num_text_blocks=2, num_visual_blocks=32, axes_dims=(16, 24, 24),
))
_HUNYUAN_DIT = Tree(
    None, 1.5, dict(image_model="hydit", depth=40, hidden_size=1408, mlp_ratio=4.3637)
)
_PIXELDIT = Tree(None, 1.3, dict(image_model="pixeldit_t2i"))

UNLISTED_TREES = {
    "omnigen2": Tree(None, 3.97, dict(
        image_model="omnigen2", hidden_size=2520, num_layers=32, num_refiner_layers=2,
        num_attention_heads=21, num_kv_heads=7, in_channels=16, out_channels=None, patch_size=2,
        axes_dim_rope=[40, 40, 40], axes_lens=[1024, 1664, 1664], ffn_dim_multiplier=None,
        multiple_of=256, norm_eps=1e-5, text_feat_dim=2048, timestep_scale=1000.0,
    )),
    "mage_flow": Tree(None, 4.1, dict(image_model="mage_flow", in_channels=128, num_layers=12)),
    "joyimage": Tree(None, 16.3, dict(
        image_model="joyimage", in_channels=16, hidden_size=4096, patch_size=[1, 2, 2],
        num_layers=40, num_attention_heads=32, text_dim=4096,
    )),
    "kandinsky5_lite": _KANDINSKY5,
    "kandinsky5_image": vary(
        _KANDINSKY5, 6.0, model_dim=2560, ff_dim=10240, visual_embed_dim=64, num_visual_blocks=50,
        axes_dims=(32, 48, 48), rope_scale_factor=(1.0, 1.0, 1.0),
    ),
    "hunyuan_dit": _HUNYUAN_DIT,
    "hunyuan_dit_1": vary(
        _HUNYUAN_DIT, 1.5, image_model="hydit1", size_cond=True, use_style_cond=True
    ),
    "hunyuan3d_2": Tree(None, 1.1, dict(
        image_model="hunyuan3d2", in_channels=64, context_in_dim=1536, hidden_size=1024,
        mlp_ratio=4.0, num_heads=16, depth=16, depth_single_blocks=32, qkv_bias=True,
        guidance_embed=False,
    )),
    "hunyuan3d_21": Tree(None, 3.05, dict(
        image_model="hunyuan3d2_1", in_channels=64, context_dim=1024, hidden_size=2048,
        mlp_ratio=4.0, num_heads=16, depth=21, qkv_bias=False, guidance_cond_proj_dim=None,
    )),
    "ace_step": Tree(None, 3.3, dict(
        audio_model="ace", in_channels=8, out_channels=8, inner_dim=2560, num_layers=24,
        num_attention_heads=20, attention_head_dim=128, mlp_ratio=2.5, patch_size=[16, 1],
        max_height=16, max_width=32768, max_position=32768, rope_theta=1000000.0,
        text_embedding_dim=768, speaker_embedding_dim=512, lyric_encoder_vocab_size=6693,
        lyric_hidden_size=1024, ssl_names=["mert", "m-hubert"], ssl_encoder_depths=[8, 8],
        ssl_latent_dims=[1024, 768],
    )),
    "pixeldit": _PIXELDIT,
    "pid": vary(
        _PIXELDIT, 1.36, image_model="pid", lq_hidden_dim=512, lq_interval=2,
        lq_latent_channels=16, latent_spatial_down_factor=8,
    ),
    "cascade_c": Tree(None, 3.6, dict(stable_cascade_stage="c", c_cond=2048)),
    "cascade_b": Tree(None, 1.56, dict(
        stable_cascade_stage="b", c_hidden=[320, 640, 1280, 1280], nhead=[-1, -1, 20, 20],
        blocks=[[2, 6, 28, 6], [6, 28, 6, 2]], block_repeat=[[1, 1, 1, 1], [3, 3, 2, 2]],
    )),
    "triposplat": Tree(None, 0.37, dict(image_model="triposplat")),
}
