"""Layers that presets name, as diffusers names them: data for docs/presets.md.

Tested by tests/lab/test_presets_page.py, against diffusers' own classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Names:
    """The names of one preset's layers. classes: of diffusers, with what each needs to be made.
    patterns: ComfyUI's pattern -> diffusers' patterns."""

    classes: dict[str, dict]
    patterns: dict[str, tuple[str, ...]] = field(default_factory=dict)


def _names(classes: dict[str, dict], **patterns: str | tuple[str, ...]) -> Names:
    return Names(
        classes, {name: (to,) if isinstance(to, str) else to for name, to in patterns.items()}
    )


def _more(names: Names, **patterns: str | tuple[str, ...]) -> Names:
    return Names(names.classes, names.patterns | _names({}, **patterns).patterns)


_FINAL = ("norm_out", "proj_out")

_FLUX1 = _names(
    {"FluxTransformer2DModel": {"guidance_embeds": True}},
    img_in="x_embedder",
    txt_in="context_embedder",
    time_in="time_text_embed.timestep_embedder",
    vector_in="time_text_embed.text_embedder",
    guidance_in="time_text_embed.guidance_embedder",
    final_layer=_FINAL,
)
_FLUX2 = _names(
    {"Flux2Transformer2DModel": {}},
    img_in="x_embedder",
    txt_in="context_embedder",
    time_in="time_guidance_embed.timestep_embedder",
    guidance_in="time_guidance_embed.guidance_embedder",
    final_layer=_FINAL,
    **{"*_attn.proj": ("attn.to_out.0", "attn.to_add_out")},
    linear2="single_transformer_blocks.*.attn.to_out",
)
_LTX2 = {"LTX2VideoTransformer3DModel": {}}

NAMES: dict[str, Names] = {
    "flux1": _FLUX1,
    "flux1_quality": _more(
        _FLUX1,
        img_mod="transformer_blocks.*.norm1.linear",
        txt_mod="transformer_blocks.*.norm1_context.linear",
        modulation="single_transformer_blocks.*.norm.linear",
    ),
    "flux2": _FLUX2,
    "chroma": _names(
        {"ChromaTransformer2DModel": {}},
        img_in="x_embedder",
        txt_in="context_embedder",
        distilled_guidance_layer="distilled_guidance_layer",
        final_layer="proj_out",
    ),
    "z_image": _names(
        {"ZImageTransformer2DModel": {}},
        x_embedder="all_x_embedder",
        cap_embedder="cap_embedder",
        t_embedder="t_embedder",
        adaLN_modulation="adaLN_modulation",
        final_layer="all_final_layer",
        noise_refiner="noise_refiner",
        context_refiner="context_refiner",
    ),
    "lumina2": _names(
        {"Lumina2Transformer2DModel": {}},
        x_embedder="x_embedder",
        cap_embedder="time_caption_embed.caption_embedder",
        t_embedder="time_caption_embed.timestep_embedder",
        adaLN_modulation="norm1.linear",
        final_layer="norm_out",
    ),
    "sd15_sdxl": _names(
        {
            "UNet2DConditionModel": {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            },
            "UNetSpatioTemporalConditionModel": {},
        },
        time_embed="time_embedding",
        label_emb="add_embedding",
        emb_layers="time_emb_proj",
        time_pos_embed="time_pos_embed",
        **{"input_blocks.0.0": "conv_in"},
        skip_connection="conv_shortcut",
        **{"out.2": "conv_out"},
    ),
    "sd3": _names(
        {"SD3Transformer2DModel": {}},
        x_embedder="pos_embed.proj",
        y_embedder="time_text_embed.text_embedder",
        t_embedder="time_text_embed.timestep_embedder",
        context_embedder="context_embedder",
        final_layer=_FINAL,
    ),
    "auraflow": _names(
        {"AuraFlowTransformer2DModel": {}},
        t_embedder="time_step_proj",
        init_x_linear="pos_embed.proj",
        cond_seq_linear="context_embedder",
        modF="norm_out",
        final_linear="proj_out",
    ),
    "pixart": _names(
        {"PixArtTransformer2DModel": {"caption_channels": 4096, "use_additional_conditions": True}},
        x_embedder="pos_embed.proj",
        y_embedder="caption_projection",
        t_embedder="adaln_single.emb.timestep_embedder",
        csize_embedder="adaln_single.emb.resolution_embedder",
        ar_embedder="adaln_single.emb.aspect_ratio_embedder",
        t_block="adaln_single.linear",
        final_layer="proj_out",
    ),
    "krea2": _names(
        {"Krea2Transformer2DModel": {}},
        first="img_in",
        tmlp="time_embed",
        tproj="time_mod_proj",
        txtmlp="txt_in",
        txtfusion="text_fusion",
        last="final_layer",
    ),
    "wan": _names(
        {"WanTransformer3DModel": {"image_dim": 1280}},
        patch_embedding="patch_embedding",
        text_embedding="condition_embedder.text_embedder",
        time_embedding="condition_embedder.time_embedder",
        time_projection="condition_embedder.time_proj",
        img_emb="condition_embedder.image_embedder",
        head="proj_out",
    ),
    "ltxv": _names(
        {"LTXVideoTransformer3DModel": {}},
        patchify_proj="proj_in",
        adaln_single="time_embed",
        caption_projection="caption_projection",
        proj_out="proj_out",
    ),
    "hunyuan_video": _names(
        {
            "HunyuanVideoTransformer3DModel": {"guidance_embeds": True},
            "HunyuanVideo15Transformer3DModel": {},
            "HunyuanImageTransformer2DModel": {},
        },
        img_in="x_embedder",
        txt_in="context_embedder",
        time_in="timestep_embedder",
        vector_in="time_text_embed.text_embedder",
        guidance_in="guidance_embedder",
        byt5_in="context_embedder_2",
        vision_in="image_embedder",
        cond_type_embedding="cond_type_embed",
        final_layer=_FINAL,
        **{
            "double_blocks.*": "transformer_blocks.*",
            "single_blocks.*": "single_transformer_blocks.*",
        },
    ),
    "cogvideox": _names(
        {"CogVideoXTransformer3DModel": {"ofs_embed_dim": 512}},
        patch_embed="patch_embed",
        **{"time_embedding_linear_*": "time_embedding", "ofs_embedding_linear_*": "ofs_embedding"},
        proj_out="proj_out",
    ),
    "mochi": _names(
        {"MochiTransformer3DModel": {}},
        x_embedder="patch_embed",
        t_embedder="time_embed.timestep_embedder",
        t5_y_embedder="time_embed.pooler",
        t5_yproj="time_embed.caption_proj",
        final_layer=_FINAL,
    ),
    "cosmos": _names(
        {"CosmosTransformer3DModel": {}},
        x_embedder="patch_embed",
        t_embedder="time_embed",
        final_layer=_FINAL,
    ),
    "minimax_h3": _names(
        {"MiniMaxH3Transformer3DModel": {}},
        video_patch_proj="proj_in",
        audio_patch_proj="audio_proj_in",
        condition_proj="context_embedder",
        time_embedder="time_embedder",
        token_refiner="token_refiner",
        adaln_proj="adaln_proj",
        final_layer=(*_FINAL, "audio_proj_out"),
    ),
    # The same names in both: the page leaves them out.
    "qwen_image": _names(
        {"QwenImageTransformer2DModel": {}},
        img_in="img_in",
        txt_in="txt_in",
        time_text_embed="time_text_embed",
        proj_out="proj_out",
        img_mod="img_mod",
        txt_mod="txt_mod",
    ),
    "ideogram4": _names(
        {"Ideogram4Transformer2DModel": {}},
        input_proj="input_proj",
        llm_cond_proj="llm_cond_proj",
        embed_image_indicator="embed_image_indicator",
        t_embedding="t_embedding",
        adaln_proj="adaln_proj",
        final_layer="final_layer",
    ),
    "ernie_image": _names(
        {"ErnieImageTransformer2DModel": {"num_layers": 36}},
        x_embedder="x_embedder",
        text_proj="text_proj",
        time_embedding="time_embedding",
        adaLN_modulation="adaLN_modulation",
        final_linear="final_linear",
        **{"layers.0": "layers.0", "layers.35": "layers.35"},
    ),
    "ltx2": _names(
        _LTX2,
        **{
            each: each
            for each in (
                "transformer_blocks.*.to_q",
                "transformer_blocks.*.to_k",
                "transformer_blocks.*.to_v",
                "transformer_blocks.*.to_out.0",
                "transformer_blocks.*ff.net.0.proj",
                "transformer_blocks.*ff.net.2",
            )
        },
    ),
}
