"""What stays whole in each tree, and the share that is quantized: the figures of the tests."""

_FLUX1 = "img_in txt_in time_in final_layer"
_FLUX2 = (
    "img_in txt_in time_in final_layer double_stream_modulation_img double_stream_modulation_txt "
    "single_stream_modulation"
)
_QWEN = "img_in txt_in time_text_embed norm_out proj_out"
_NEXT_DIT = "x_embedder cap_embedder t_embedder noise_refiner.#.adaLN_modulation.#:2"
_UNET = "time_embed middle_block.#.emb_layers.#:2"
_UNET4 = f"{_UNET} input_blocks.#.#.emb_layers.#:8 output_blocks.#.#.emb_layers.#:12"
_WAN = "text_embedding time_embedding time_projection head"
_LTX2 = (
    "patchify_proj adaln_single caption_projection proj_out video_embeddings_connector "
    "audio_patchify_proj audio_adaln_single audio_caption_projection audio_proj_out "
    "audio_embeddings_connector av_ca_video_scale_shift_adaln_single av_ca_a2v_gate_adaln_single "
    "av_ca_audio_scale_shift_adaln_single av_ca_v2a_gate_adaln_single"
)
_HUNYUAN = "txt_in time_in final_layer"
_OMNIGEN = (
    "x_embedder ref_image_patch_embedder time_caption_embed norm_out "
    "noise_refiner.#.norm1.linear:2 ref_image_refiner.#.norm1.linear:2"
)
_HUNYUAN_DIT = (
    "mlp_t5 pooler t_embedder extra_embedder final_layer blocks.#.default_modulation.#:40"
)
_PIXELDIT = "pixel_embedder s_embedder t_embedder y_embedder final_layer"
_COSMOS = "x_embedder t_embedder final_layer"
_H3 = (
    "video_patch_proj audio_patch_proj condition_proj token_refiner final_layer "
    "blocks.#.adaln_proj.linear:50"
)


def _each(count, prefix, names):
    return " ".join(f"{prefix}{name}:{count}" for name in names.split())


_PIXELDIT_MODULATION = (
    _each(14, "patch_blocks.#.", "adaLN_modulation_img.# adaLN_modulation_txt.#")
    + " "
    + _each(2, "pixel_blocks.#.", "adaLN_modulation_msa adaLN_modulation_mlp")
)

# Of each tree: the share of the Linear weights that is quantized, and all the Linears that stay:
# the parts of the model that stay whole, then single layers (# for a number) with how many of them.
EXPECTED = {
    "flux1_dev": (0.995, f"{_FLUX1} vector_in guidance_in"),
    "flux1_schnell": (0.995, f"{_FLUX1} vector_in"),
    "longcat_image": (0.994, _FLUX1),
    "ovis_image": (0.995, _FLUX1),
    "flux2_dev": (0.975, f"{_FLUX2} guidance_in"),
    "flux2_klein_9b": (0.961, _FLUX2),
    "chroma": (0.967, "img_in txt_in distilled_guidance_layer final_layer"),
    "chroma_radiance": (
        0.906,
        "txt_in distilled_guidance_layer nerf_blocks nerf_image_embedder",
    ),
    "qwen_image": (0.995, f"{_QWEN} transformer_blocks.#.img_mod.#:1"),
    "z_image": (0.978, f"{_NEXT_DIT} final_layer layers.#.adaLN_modulation.#:30"),
    "z_image_omni": (
        0.978,
        f"{_NEXT_DIT} final_layer siglip_embedder layers.#.adaLN_modulation.#:30",
    ),
    "z_image_pixel": (0.929, f"{_NEXT_DIT} dec_net layers.#.adaLN_modulation.#:30"),
    "lumina2": (0.895, f"{_NEXT_DIT} final_layer layers.#.adaLN_modulation.#:26"),
    "newbie": (
        0.893,
        f"{_NEXT_DIT} final_layer clip_text_pooled_proj time_text_embed "
        "layers.#.adaLN_modulation.#:36",
    ),
    "sd35_large": (0.995, "t_embedder y_embedder context_embedder final_layer"),
    "sd35_medium": (0.991, "t_embedder y_embedder context_embedder final_layer"),
    "auraflow": (0.995, "t_embedder init_x_linear cond_seq_linear modF final_linear"),
    "pixart_sigma": (0.974, "t_embedder y_embedder t_block final_layer"),
    "pixart_alpha": (0.974, "t_embedder y_embedder t_block final_layer csize_embedder ar_embedder"),
    "hidream_i1": (0.968, "x_embedder t_embedder p_embedder caption_projection final_layer"),
    "hidream_o1": (0.934, "x_embedder t_embedder1 visual final_layer2"),
    "krea2": (0.948, "first tmlp tproj txtmlp txtfusion last"),
    "ideogram4": (0.968, "input_proj llm_cond_proj t_embedding adaln_proj final_layer"),
    "ernie_image": (
        0.923,
        "text_proj time_embedding adaLN_modulation final_norm final_linear "
        + _each(2, "layers.#.self_attention.", "to_q to_k to_v to_out.#")
        + _each(2, " layers.#.mlp.", "gate_proj up_proj linear_fc2"),
    ),
    "boogu": (
        0.896,
        f"{_OMNIGEN} single_stream_layers.#.norm1.linear:32 "
        + _each(8, "double_stream_layers.#.img_", "norm1.linear norm2.linear norm3.linear")
        + _each(8, " double_stream_layers.#.instruct_", "norm1.linear norm2.linear"),
    ),
    "lens": (
        0.663,
        f"{_QWEN} transformer_blocks.#.img_mod.#:48 transformer_blocks.#.txt_mod.#:48",
    ),
    "sd15": (0.897, _UNET4),
    "sd21": (0.908, _UNET4),
    "sdxl": (
        0.989,
        f"{_UNET} label_emb input_blocks.#.#.emb_layers.#:6 output_blocks.#.#.emb_layers.#:9",
    ),
    "sdxl_refiner": (0.968, f"{_UNET4} label_emb"),
    "svd": (
        0.812,
        f"{_UNET4} label_emb middle_block.#.time_stack.emb_layers.#:2 "
        "input_blocks.#.#.time_stack.emb_layers.#:8 output_blocks.#.#.time_stack.emb_layers.#:12 "
        "middle_block.#.time_pos_embed.#:2 input_blocks.#.#.time_pos_embed.#:12 "
        "output_blocks.#.#.time_pos_embed.#:18",
    ),
    "wan21_14b": (0.984, _WAN),
    "wan22_5b": (0.982, _WAN),
    "wan21_i2v": (0.985, f"{_WAN} img_emb"),
    "wan21_fun": (0.985, f"{_WAN} img_emb"),
    "wan21_vace": (0.987, _WAN),
    "wan21_camera": (0.985, f"{_WAN} img_emb"),
    "wan21_humo": (0.984, f"{_WAN} audio_proj"),
    "wan21_scail2": (0.985, f"{_WAN} img_emb"),
    "wan22_s2v": (0.868, f"{_WAN} audio_injector casual_audio_encoder"),
    "wan22_animate": (0.937, f"{_WAN} img_emb face_adapter face_encoder"),
    "wan22_dancer": (
        0.937,
        f"{_WAN} head_global img_emb img_emb_refimage music_encoder music_injector "
        "music_projection",
    ),
    "ltxv_2b": (0.978, "patchify_proj adaln_single caption_projection proj_out"),
    "ltxv_13b": (0.988, "patchify_proj adaln_single caption_projection proj_out"),
    "ltx2": (0.946, _LTX2),
    "ltx23": (
        0.940,
        f"{_LTX2} prompt_adaln_single audio_prompt_adaln_single "
        + _each(48, "transformer_blocks.#.", "attn1.to_gate_logits attn2.to_gate_logits ")
        + _each(48, " transformer_blocks.#.audio_", "attn1.to_gate_logits attn2.to_gate_logits")
        + _each(48, " transformer_blocks.#.audio_to_video_attn.", "to_gate_logits")
        + _each(48, " transformer_blocks.#.video_to_audio_attn.", "to_gate_logits"),
    ),
    "hunyuan_video": (0.972, f"{_HUNYUAN} vector_in guidance_in"),
    "hunyuan_video_15": (0.980, f"{_HUNYUAN} byt5_in vision_in"),
    "hunyuan_image_21_distilled": (0.972, f"{_HUNYUAN} byt5_in guidance_in time_r_in"),
    "cogvideox_5b_i2v": (
        0.854,
        "patch_embed time_embedding_linear_1 time_embedding_linear_2 ofs_embedding_linear_1 "
        "ofs_embedding_linear_2 norm_out proj_out blocks.#.norm1.linear:42 "
        "blocks.#.norm2.linear:42",
    ),
    "mochi": (0.990, "t_embedder t5_y_embedder t5_yproj final_layer"),
    "cosmos_7b": (0.990, _COSMOS),
    "cosmos_predict2_2b": (0.990, _COSMOS),
    "anima": (
        0.905,
        f"{_COSMOS} llm_adapter "
        + _each(4, "blocks.#.adaln_modulation_", "self_attn.# cross_attn.# mlp.#")
        + _each(1, " blocks.#.self_attn.", "q_proj k_proj v_proj output_proj")
        + _each(1, " blocks.#.cross_attn.", "q_proj k_proj v_proj output_proj")
        + _each(1, " blocks.#.mlp.", "layer1 layer2"),
    ),
    "minimax_h3": (0.582, f"{_H3} time_embedder"),
    "minimax_h3_shared_time_curve": (0.946, _H3),
    "seedvr2_3b": (0.982, "vid_in txt_in emb_in vid_out"),
    "seedvr2_7b": (0.990, "vid_in txt_in emb_in vid_out"),
    # From here on the generic rule is at work.
    "omnigen2": (0.904, f"{_OMNIGEN} layers.#.norm1.linear:32"),
    "mage_flow": (
        0.661,
        f"{_QWEN} transformer_blocks.#.img_mod.#:12 transformer_blocks.#.txt_mod.#:12",
    ),
    "joyimage": (0.991, "condition_embedder proj_out"),
    "kandinsky5_lite": (
        0.858,
        "visual_embeddings text_embeddings pooled_text_embeddings time_embeddings out_layer "
        "text_transformer_blocks.#.text_modulation.out_layer:2 "
        "visual_transformer_blocks.#.visual_modulation.out_layer:32",
    ),
    "kandinsky5_image": (
        0.897,
        "visual_embeddings text_embeddings pooled_text_embeddings time_embeddings out_layer "
        "text_transformer_blocks.#.text_modulation.out_layer:2 "
        "visual_transformer_blocks.#.visual_modulation.out_layer:50",
    ),
    "hunyuan_dit": (0.907, _HUNYUAN_DIT),
    "hunyuan_dit_1": (0.897, _HUNYUAN_DIT),
    "hunyuan3d_2": (
        0.724,
        "latent_in cond_in time_in final_layer double_blocks.#.img_mod.lin:16 "
        "double_blocks.#.txt_mod.lin:16 single_blocks.#.modulation.lin:32",
    ),
    "hunyuan3d_21": (0.989, "x_embedder t_embedder final_layer"),
    "ace_step": (
        0.936,
        "genre_embedder speaker_embedder timestep_embedder t_block lyric_encoder lyric_proj "
        "final_layer",
    ),
    "pixeldit": (0.632, f"{_PIXELDIT} {_PIXELDIT_MODULATION}"),
    "pid": (0.614, f"{_PIXELDIT} {_PIXELDIT_MODULATION} lq_proj"),
    "cascade_c": (
        0.980,
        "clip_txt_mapper clip_txt_pooled_mapper clip_img_mapper "
        + _each(32, "down_blocks.#.#.", "mapper mapper_sca mapper_crp")
        + _each(32, " up_blocks.#.#.", "mapper mapper_sca mapper_crp"),
    ),
    "cascade_b": (
        0.980,
        "clip_mapper "
        + _each(42, "down_blocks.#.#.", "mapper mapper_sca")
        + _each(42, " up_blocks.#.#.", "mapper mapper_sca"),
    ),
    "triposplat": (
        0.952,
        "input_layer cond_embedder cond_embedder2 t_embedder adaLN_modulation repo_layers "
        "noise_repo_layers context_repo_layers cam_refiner out_layer cam_out_layer",
    ),
}
