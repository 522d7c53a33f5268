"""Image diffusion transformers at their real sizes."""

from __future__ import annotations

from .tree import Tree, vary

# fmt: off
_FLUX1 = Tree("flux1", 11.9, dict(
    image_model="flux", in_channels=16, out_channels=16, patch_size=2, hidden_size=3072,
    num_heads=24, mlp_ratio=4.0, depth=19, depth_single_blocks=38, axes_dim=[16, 56, 56],
    theta=10000, qkv_bias=True, context_in_dim=4096, vec_in_dim=768, txt_ids_dims=[],
    guidance_embed=True, yak_mlp=False, txt_norm=False,
))
_FLUX2 = vary(
    _FLUX1, 32.2, preset="flux2",
    image_model="flux2", in_channels=128, out_channels=128, patch_size=1, hidden_size=6144,
    num_heads=48, mlp_ratio=3.0, depth=8, depth_single_blocks=48, axes_dim=[32, 32, 32, 32],
    theta=2000, qkv_bias=False, ops_bias=False, context_in_dim=15360, vec_in_dim=None,
    txt_ids_dims=[3], global_modulation=True, mlp_silu_act=True, default_ref_method="index",
    ref_index_scale=10.0,
)
_CHROMA = vary(
    _FLUX1, 8.9, preset="chroma", without=("guidance_embed", "yak_mlp", "txt_norm"),
    image_model="chroma", in_channels=64, out_channels=64, vec_in_dim=None, in_dim=64,
    out_dim=3072, hidden_dim=5120, n_layers=5,
)
_LUMINA2 = Tree("lumina2", 2.6, dict(
    image_model="lumina2", patch_size=2, in_channels=16, dim=2304, cap_feat_dim=2304, n_layers=26,
    n_heads=24, n_kv_heads=8, qk_norm=True, axes_dims=[32, 32, 32], axes_lens=[300, 512, 512],
    rope_theta=10000.0, ffn_dim_multiplier=4.0,
))
_Z_IMAGE = vary(
    _LUMINA2, 6.15, preset="z_image",
    dim=3840, cap_feat_dim=2560, n_layers=30, n_heads=30, n_kv_heads=30, axes_dims=[32, 48, 48],
    axes_lens=[1536, 512, 512], rope_theta=256.0, ffn_dim_multiplier=8 / 3,
    z_image_modulation=True, time_scale=1000.0, pad_tokens_multiple=32,
)
_SD35 = Tree("sd3", 8.06, dict(
    in_channels=16, out_channels=16, patch_size=2, depth=38, input_size=None,
    adm_in_channels=2048, num_patches=36864, pos_embed_max_size=192, pos_embed_scaling_factor=None,
    qk_norm="rms", x_block_self_attn_layers=[], context_embedder_config=dict(
        target="torch.nn.Linear", params=dict(in_features=4096, out_features=2432)),
))
_PIXART = Tree("pixart", 0.61, dict(
    image_model="pixart_sigma", num_heads=16, patch_size=2, hidden_size=1152, in_channels=4,
    depth=28, model_max_length=300, micro_condition=False,
))

IMAGE_TREES = {
    "flux1_dev": _FLUX1,
    "flux1_schnell": vary(_FLUX1, 11.9, guidance_embed=False),
    "longcat_image": vary(
        _FLUX1, 6.3, guidance_embed=False, vec_in_dim=None, context_in_dim=3584,
        txt_ids_dims=[1, 2], depth=10, depth_single_blocks=20,
    ),
    "ovis_image": vary(
        _FLUX1, 7.4, guidance_embed=False, vec_in_dim=None, context_in_dim=2048,
        txt_ids_dims=[1, 2], depth=6, depth_single_blocks=27, yak_mlp=True, txt_norm=True,
    ),
    "flux2_dev": _FLUX2,
    "flux2_klein_9b": vary(
        _FLUX2, 9.1, hidden_size=4096, num_heads=32, context_in_dim=12288,
        depth_single_blocks=24, guidance_embed=False,
    ),
    "chroma": _CHROMA,
    "chroma_radiance": vary(
        _CHROMA, 9.5, image_model="chroma_radiance", in_channels=3, out_channels=3, patch_size=16,
        nerf_hidden_size=64, nerf_mlp_ratio=4, nerf_depth=4, nerf_max_freqs=8, nerf_tile_size=512,
        nerf_final_head_type="conv", nerf_embedder_dtype=None, use_x0=True,
        use_sequential_txt_ids=False,
    ),
    "qwen_image": Tree(
        "qwen_image", 20.4, dict(image_model="qwen_image", in_channels=64, num_layers=60)
    ),
    "z_image": _Z_IMAGE,
    "z_image_omni": vary(_Z_IMAGE, 6.5, siglip_feat_dim=1152),
    "z_image_pixel": vary(
        _Z_IMAGE, 6.5, image_model="zimage_pixel", patch_size=32, in_channels=3,
        decoder_in_channels=3, decoder_hidden_size=3840, decoder_num_res_blocks=4,
        decoder_max_freqs=8, use_x0=True,
    ),
    "lumina2": _LUMINA2,
    "newbie": vary(_LUMINA2, 3.5, n_layers=36, cap_feat_dim=2560, clip_text_dim=1024),
    "sd35_large": _SD35,
    "sd35_medium": vary(
        _SD35, 2.24, depth=24, num_patches=147456, pos_embed_max_size=384,
        x_block_self_attn_layers=list(range(13)), context_embedder_config=dict(
            target="torch.nn.Linear", params=dict(in_features=4096, out_features=1536)),
    ),
    "auraflow": Tree(
        "auraflow", 6.8, dict(max_seq=9216, cond_seq_dim=2048, n_double_layers=4, n_layers=36)
    ),
    "pixart_sigma": _PIXART,
    "pixart_alpha": vary(
        _PIXART, 0.61, image_model="pixart_alpha", model_max_length=120, micro_condition=True
    ),
    "hidream_i1": Tree("hidream", 17.1, dict(
        image_model="hidream", in_channels=16, out_channels=16, patch_size=2,
        num_attention_heads=20, attention_head_dim=128, num_layers=16, num_single_layers=32,
        num_routed_experts=4, num_activated_experts=2, text_emb_dim=2048,
        caption_channels=[4096, 4096], llama_layers=[*range(32), *[31] * 16],
        axes_dims_rope=[64, 32, 32], max_resolution=[128, 128],
    )),
    "hidream_o1": Tree("hidream_o1", 8.1, dict(image_model="hidream_o1")),
    "krea2": Tree("krea2", 12.8, dict(
        image_model="krea2", features=6144, channels=16, patch=2, layers=28, heads=48, kvheads=12,
        txtlayers=12, txtdim=2560,
    )),
    "ideogram4": Tree(
        "ideogram4", 9.3, dict(image_model="ideogram4", in_channels=128, num_layers=34)
    ),
    "ernie_image": Tree("ernie_image", 8.0, dict(image_model="ernie")),
    "boogu": Tree("boogu", 10.3, dict(
        image_model="boogu", hidden_size=3360, num_layers=32, num_double_stream_layers=8,
        num_refiner_layers=2, instruction_feat_dim=4096,
    )),
    "lens": Tree("lens", 4.1, dict(
        image_model="lens", in_channels=128, out_channels=32, num_layers=48,
        num_attention_heads=24, enc_hidden_dim=2880, multi_layer_encoder_feature=True,
        selected_layer_index=(0, 1, 2, 3),
    )),
}
