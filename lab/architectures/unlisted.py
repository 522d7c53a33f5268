"""Models that have no preset, to try the generic rule on."""

from __future__ import annotations

from .tree import Tree

# fmt: off
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
    "kandinsky5_lite": Tree(None, 2.0, dict(
        image_model="kandinsky5", model_dim=1792, ff_dim=7168, time_dim=512, visual_embed_dim=132,
        num_text_blocks=2, num_visual_blocks=32, axes_dims=(16, 24, 24),
    )),
    "hunyuan_dit": Tree(
        None, 1.5, dict(image_model="hydit", depth=40, hidden_size=1408, mlp_ratio=4.3637)
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
    "pixeldit": Tree(None, 1.3, dict(image_model="pixeldit_t2i")),
    "cascade_c": Tree(None, 3.6, dict(stable_cascade_stage="c", c_cond=2048)),
}
