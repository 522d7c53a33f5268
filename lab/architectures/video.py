"""Video, audio-video and world models at their real sizes."""

from __future__ import annotations

from .tree import Tree, vary

# fmt: off
_WAN = Tree("wan", 14.3, dict(
    image_model="wan2.1", model_type="t2v", dim=5120, ffn_dim=13824, num_heads=40, num_layers=40,
    in_dim=16, out_dim=16, patch_size=(1, 2, 2), freq_dim=256, window_size=(-1, -1), qk_norm=True,
    cross_attn_norm=True, eps=1e-6,
))
_LTXV = Tree("ltxv", 1.92, dict(
    image_model="ltxv", num_layers=28, attention_head_dim=64, cross_attention_dim=2048,
))
_LTX2 = vary(
    _LTXV, 19.6, preset="ltx2", image_model="ltxav", num_layers=48, attention_head_dim=128,
    cross_attention_dim=4096,
)
_HUNYUAN_VIDEO = Tree("hunyuan_video", 12.8, dict(
    image_model="hunyuan_video", in_channels=16, out_channels=16, patch_size=[1, 2, 2],
    hidden_size=3072, num_heads=24, mlp_ratio=4.0, depth=20, depth_single_blocks=40,
    axes_dim=[16, 56, 56], theta=256, qkv_bias=True, context_in_dim=4096, vec_in_dim=768,
    guidance_embed=True, byt5=False, meanflow=False, meanflow_sum=False, vision_in_dim=None,
    use_cond_type_embedding=False,
))
_PREDICT2 = Tree("cosmos", 1.96, dict(
    image_model="cosmos_predict2", in_channels=16, out_channels=16, patch_spatial=2,
    patch_temporal=1, model_channels=2048, num_blocks=28, num_heads=16, max_img_h=240,
    max_img_w=240, max_frames=128, concat_padding_mask=True, crossattn_emb_channels=1024,
    pos_emb_cls="rope3d", pos_emb_learnable=True, pos_emb_interpolation="crop", min_fps=1,
    max_fps=30, use_adaln_lora=True, adaln_lora_dim=256, extra_per_block_abs_pos_emb=False,
    rope_h_extrapolation_ratio=4.0, rope_w_extrapolation_ratio=4.0, rope_t_extrapolation_ratio=1.0,
    extra_h_extrapolation_ratio=1.0, extra_w_extrapolation_ratio=1.0,
    extra_t_extrapolation_ratio=1.0, rope_enable_fps_modulation=False,
))
_SEEDVR2 = Tree("seedvr2", 3.4, dict(
    image_model="seedvr2", vid_dim=2560, heads=20, num_layers=32, norm_eps=1e-5,
    mlp_type="swiglu", vid_out_norm=True,
))

VIDEO_TREES = {
    "wan21_14b": _WAN,
    "wan22_5b": vary(
        _WAN, 5.0, dim=3072, ffn_dim=14336, num_heads=24, num_layers=30, in_dim=48, out_dim=48
    ),
    "wan21_i2v": vary(_WAN, 16.4, model_type="i2v", in_dim=36),
    "wan21_fun": vary(_WAN, 16.4, model_type="i2v", in_dim=48, in_dim_ref_conv=16),
    "wan21_vace": vary(_WAN, 17.3, model_type="vace", vace_in_dim=96, vace_layers=8),
    "wan21_camera": vary(_WAN, 16.9, model_type="camera", in_dim=32),
    "wan21_humo": vary(_WAN, 17.1, model_type="humo", in_dim=36),
    "wan21_scail2": vary(_WAN, 16.4, model_type="scail2", in_dim=20),
    "wan22_s2v": vary(_WAN, 16.3, model_type="s2v"),
    "wan22_animate": vary(_WAN, 17.3, model_type="animate", in_dim=36),
    "wan22_dancer": vary(_WAN, 17.2, model_type="wandancer", in_dim=36),
    "ltxv_2b": _LTXV,
    "ltxv_13b": vary(_LTXV, 13.0, num_layers=48, attention_head_dim=128, cross_attention_dim=4096),
    "ltx2": _LTX2,
    "ltx23": vary(
        _LTX2, 19.7, apply_gated_attention=True, caption_proj_before_connector=True,
        cross_attention_adaln=True,
    ),
    "hunyuan_video": _HUNYUAN_VIDEO,
    "hunyuan_video_15": vary(
        _HUNYUAN_VIDEO, 8.3, in_channels=65, out_channels=32, patch_size=[1, 1, 1],
        hidden_size=2048, num_heads=16, depth=54, depth_single_blocks=0, context_in_dim=3584,
        vec_in_dim=None, guidance_embed=False, byt5=True, vision_in_dim=1152, meanflow_sum=True,
        use_cond_type_embedding=True,
    ),
    "hunyuan_image_21_distilled": vary(
        _HUNYUAN_VIDEO, 17.5, in_channels=64, out_channels=64, patch_size=[1, 1],
        hidden_size=3584, num_heads=28, axes_dim=[64, 64], context_in_dim=3584, vec_in_dim=None,
        byt5=True, meanflow=True,
    ),
    "cogvideox_5b_i2v": Tree("cogvideox", 5.57, dict(
        image_model="cogvideox", num_attention_heads=48, attention_head_dim=64, num_layers=42,
        in_channels=32, patch_size=2, patch_size_t=2, time_embed_dim=512, text_embed_dim=4096,
        ofs_embed_dim=512, use_learned_positional_embeddings=False,
        use_rotary_positional_embeddings=True,
    )),
    "mochi": Tree("mochi", 10.0, dict(
        image_model="mochi_preview", depth=48, patch_size=2, num_heads=24, hidden_size_x=3072,
        hidden_size_y=1536, mlp_ratio_x=4.0, mlp_ratio_y=4.0, learn_sigma=False, in_channels=12,
        qk_norm=True, qkv_bias=False, out_bias=True, attn_drop=0.0, patch_embed_bias=True,
        posenc_preserve_area=True, timestep_mlp_bias=True, attend_to_padding=False,
        timestep_scale=1000.0, use_t5=True, t5_feat_dim=4096, t5_token_length=256,
        rope_theta=10000.0,
    )),
    "cosmos_7b": Tree("cosmos", 7.2, dict(
        image_model="cosmos", in_channels=16, out_channels=16, patch_spatial=2, patch_temporal=1,
        model_channels=4096, num_blocks=28, num_heads=32, max_img_h=240, max_img_w=240,
        max_frames=128, block_config="FA-CA-MLP", block_x_format="THWBD", affline_emb_norm=True,
        concat_padding_mask=True, pos_emb_cls="rope3d", pos_emb_learnable=False,
        pos_emb_interpolation="crop", use_adaln_lora=True, adaln_lora_dim=256,
        rope_h_extrapolation_ratio=1.0, rope_w_extrapolation_ratio=1.0,
        rope_t_extrapolation_ratio=2.0, extra_per_block_abs_pos_emb=True,
        extra_per_block_abs_pos_emb_type="learnable",
    )),
    "cosmos_predict2_2b": _PREDICT2,
    "anima": vary(_PREDICT2, 2.1, preset="anima", image_model="anima"),
    "minimax_h3": Tree("minimax_h3", 33.1, dict(
        image_model="minimax_h3", num_layers=50, token_refiner_num_layers=2,
    )),
    "minimax_h3_shared_time_curve": Tree("minimax_h3", 20.4, dict(
        image_model="minimax_h3", num_layers=50, token_refiner_num_layers=2,
        adaln_curve_grid=1001, time_embed_dim=64,
    )),
    "seedvr2_3b": _SEEDVR2,
    "seedvr2_7b": vary(
        _SEEDVR2, 8.2, without=("vid_out_norm",),
        vid_dim=3072, heads=24, num_layers=36, mm_layers=36, rope_type="rope3d",
        rope_dim=64, mlp_type="normal",
    ),
}
