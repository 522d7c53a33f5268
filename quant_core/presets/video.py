"""Video, audio-video and world models: what stays, by the names of ComfyUI's own module trees."""

from __future__ import annotations

from .preset import Preset, Raised

_COSMOS = ("x_embedder", "t_embedder", "final_layer")

LTX2_ONLY = (
    "transformer_blocks.*.to_q",
    "transformer_blocks.*.to_k",
    "transformer_blocks.*.to_v",
    "transformer_blocks.*.to_out.0",
    "transformer_blocks.*ff.net.0.proj",
    "transformer_blocks.*ff.net.2",
)

VIDEO_PRESETS = (
    Preset(
        "wan",
        "Wan 2.1, Wan 2.2 and their VACE, Fun, Camera, S2V, Animate, HuMo, SCAIL, Dancer variants",
        keep=(
            "patch_embedding",
            "text_embedding",
            "time_embedding",
            "time_projection",
            "img_emb",
            "ref_conv",
            "head",
        ),
        # What the variants add beside the blocks (encoders and injectors of audio, music, faces,
        # poses and cameras) differs from one to the next; each list known to us keeps all of it.
        only=("blocks.*", "vace_blocks.*"),
        source="convert_to_quant, INT8-Fast, WanVideoWrapper and ComfyUI-GGUF agree",
        raised=(
            Raised(
                tuple(f"blocks.{block}" for block in (0, 1, 2, 37, 38, 39)),
                "NVIDIA ModelOpt keeps these of Wan 2.2's 40 blocks",
            ),
        ),
    ),
    Preset(
        "ltxv",
        "LTX-Video 0.9",
        keep=("patchify_proj", "adaln_single", "caption_projection", "proj_out"),
        source="ComfyUI-GGUF's skip list; NVIDIA ModelOpt's is the same",
    ),
    Preset(
        "ltx2",
        "LTX-2, LTX-2.3",
        keep=(),
        only=LTX2_ONLY,
        source="Lightricks' own list of what to quantize, audio blocks included",
        raised=(
            Raised(
                tuple(f"transformer_blocks.{block}" for block in (0, 1, 46, 47)),
                "the official NVFP4 file of LTX-2.3 keeps these of 48 blocks",
            ),
        ),
    ),
    Preset(
        "hunyuan_video",
        "HunyuanVideo 1.0 and 1.5, HunyuanImage 2.1",
        keep=(
            "img_in",
            "txt_in",
            "time_in",
            "time_r_in",
            "vector_in",
            "guidance_in",
            "byt5_in",
            "vision_in",
            "cond_type_embedding",
            "final_layer",
        ),
        only=("double_blocks.*", "single_blocks.*"),
        source="Tencent's FP8 map quantizes the two block lists; ComfyUI-GGUF and convert_to_quant "
        "keep the rest by name, the token refiner in txt_in included",
    ),
    Preset(
        "cogvideox",
        "CogVideoX",
        keep=("patch_embed", "time_embedding_linear_*", "ofs_embedding_linear_*", "proj_out"),
        source="diffusers' layerwise casting",
    ),
    Preset(
        "mochi",
        "Mochi 1",
        keep=("x_embedder", "t_embedder", "t5_y_embedder", "t5_yproj", "final_layer"),
        source="diffusers' layerwise casting",
    ),
    Preset(
        "cosmos",
        "Cosmos 1.0, Cosmos Predict2",
        keep=_COSMOS,
        source="ComfyUI-GGUF's skip list",
    ),
    Preset(
        "anima",
        "Anima",
        keep=(*_COSMOS, "llm_adapter", "blocks.0", "blocks.1.adaln_modulation_*"),
        source="convert_to_quant and comfy-quants agree",
    ),
    Preset(
        "minimax_h3",
        "MiniMax-H3",
        keep=(
            "video_patch_proj",
            "audio_patch_proj",
            "condition_proj",
            "time_embedder",
            "token_refiner",
            "adaln_proj",
            "final_layer",
        ),
        source="kitchen-nvfp4 and DiffSynth's settings for the official files",
    ),
    Preset(
        "seedvr2",
        "SeedVR2",
        keep=("vid_in", "txt_in", "emb_in", "vid_out", "vid_out_ada"),
        source="SDNQ",
    ),
)
