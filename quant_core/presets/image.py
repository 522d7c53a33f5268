"""Image models: what stays, by the names of ComfyUI's own module trees."""

from __future__ import annotations

from .preset import Preset, Raised

_FLUX1 = ("img_in", "txt_in", "time_in", "vector_in", "guidance_in", "final_layer")
_QWEN_IMAGE = ("img_in", "txt_in", "time_text_embed", "proj_out")
_NEXT_DIT = ("x_embedder", "cap_embedder", "t_embedder", "adaLN_modulation", "final_layer")

FLUX2_KEEP = (
    "img_in",
    "txt_in",
    "time_in",
    "guidance_in",
    "double_stream_modulation_img",
    "double_stream_modulation_txt",
    "single_stream_modulation",
    "final_layer",
)

IMAGE_PRESETS = (
    Preset(
        "flux1",
        "FLUX.1, LongCat-Image, Ovis-Image",
        keep=_FLUX1,
        source="ComfyUI-GGUF's skip list; kitchen-nvfp4 and flux-fp8-api keep the same layers",
    ),
    Preset(
        "flux1_quality",
        "FLUX.1 with modulation kept (27 % of the weights)",
        keep=(*_FLUX1, "img_mod", "txt_mod", "modulation"),
        source="the flux1 list, with the modulation that SGLang and diffusers' layerwise casting "
        "keep as well; flux-fp8-api finds precision considerably better with it",
    ),
    Preset(
        "flux2",
        "FLUX.2 dev and klein",
        keep=FLUX2_KEEP,
        source="convert_to_quant, INT8-Fast, SGLang and SDNQ agree",
        raised=(Raised(("*_attn.proj", "linear2"), "the official INT4 mixed file of FLUX.2"),),
    ),
    Preset(
        "chroma",
        "Chroma, Chroma Radiance",
        keep=(
            "img_in",
            "img_in_patch",
            "txt_in",
            "distilled_guidance_layer",
            "nerf_image_embedder",
            "nerf_blocks",
            "nerf_final_layer_conv",
            "final_layer",
        ),
        source="convert_to_quant's large Chroma list and its Radiance list",
    ),
    Preset(
        "qwen_image",
        "Qwen-Image, Qwen-Image-Edit",
        keep=(*_QWEN_IMAGE, "transformer_blocks.0.img_mod"),
        source="convert_to_quant, comfy-quants and SDNQ agree",
        raised=(
            Raised(
                ("img_mod", "txt_mod"),
                "published: 9 dB with modulation in INT4, 26.6 dB in INT8; nunchaku has 16 bits",
            ),
        ),
    ),
    Preset(
        "qwen_image_quality",
        "Qwen-Image with modulation and image MLPs kept (55 % of the weights)",
        keep=(*_QWEN_IMAGE, "img_mod", "txt_mod", "img_mlp"),
        source="vLLM-Omni, which keeps all modulation: LPIPS 0.17 with img_mlp kept too, else 0.39",
    ),
    Preset(
        "z_image",
        "Z-Image, Z-Image-Omni, Z-Image in pixel space",
        keep=(*_NEXT_DIT, "siglip_embedder", "dec_net"),
        source="convert_to_quant; vLLM-Omni measured LPIPS 0.74 -> 0.07 for 1 % kept. The pixel "
        "decoder (dec_net) draws the picture at the end, as a final layer does",
        raised=(
            Raised(
                ("noise_refiner", "context_refiner"),
                "ComfyUI-GGUF and INT8-Fast keep the refiners of Lumina 2 and Z-Image",
            ),
        ),
    ),
    Preset(
        "lumina2",
        "Lumina 2, NewBie",
        keep=(*_NEXT_DIT, "clip_text_pooled_proj", "time_text_embed"),
        source="Z-Image's list: one architecture; ComfyUI-GGUF and diffusers keep its embedders",
    ),
    Preset(
        "sd15_sdxl",
        "SD 1.x, SD 2.x, SDXL, Stable Video Diffusion",
        keep=(
            "time_embed",
            "label_emb",
            "emb_layers",
            "time_pos_embed",
            "input_blocks.0.0",
            "skip_connection",
            "out.2",
        ),
        source="NVIDIA ModelOpt's and ComfyUI-GGUF's lists in ComfyUI's names",
    ),
    Preset(
        "sd3",
        "Stable Diffusion 3, 3.5",
        keep=("x_embedder", "y_embedder", "t_embedder", "context_embedder", "final_layer"),
        source="ComfyUI-GGUF's skip list",
    ),
    Preset(
        "auraflow",
        "AuraFlow",
        keep=("t_embedder", "init_x_linear", "cond_seq_linear", "modF", "final_linear"),
        source="ComfyUI-GGUF's skip list",
    ),
    Preset(
        "pixart",
        "PixArt-alpha, PixArt-Sigma",
        keep=(
            "x_embedder",
            "y_embedder",
            "t_embedder",
            "csize_embedder",
            "ar_embedder",
            "t_block",
            "final_layer",
        ),
        source="diffusers' layerwise casting keeps the embedders and adaln_single, here t_block",
    ),
    Preset(
        "hidream",
        "HiDream-I1",
        keep=(
            "x_embedder",
            "t_embedder",
            "p_embedder",
            "caption_projection",
            "ff_i.gate",
            "final_layer",
        ),
        source="ComfyUI-GGUF's skip list; ff_i.gate routes the experts",
    ),
    Preset(
        "hidream_o1",
        "HiDream-O1",
        keep=("x_embedder", "t_embedder1", "visual", "final_layer2"),
        source="SDNQ; its vision tower stays as in every text encoder",
    ),
    Preset(
        "krea2",
        "Krea 2",
        keep=("first", "tmlp", "tproj", "txtmlp", "txtfusion", "last"),
        source="convert_to_quant, its shortened names written out",
    ),
    Preset(
        "ideogram4",
        "Ideogram 4",
        keep=(
            "input_proj",
            "llm_cond_proj",
            "embed_image_indicator",
            "t_embedding",
            "adaln_proj",
            "final_layer",
        ),
        source="convert_to_quant",
    ),
    Preset(
        "ernie_image",
        "ERNIE-Image",
        keep=(
            "x_embedder",
            "text_proj",
            "time_embedding",
            "adaLN_modulation",
            "final_linear",
            "layers.0",
            "layers.35",
        ),
        source="INT8-Fast, first and last block included",
    ),
    Preset(
        "boogu",
        "Boogu-Image",
        keep=("x_embedder", "ref_image_patch_embedder", "time_caption_embed"),
        source="convert_to_quant",
    ),
    Preset(
        "lens",
        "Lens",
        keep=(*_QWEN_IMAGE, "img_mod", "txt_mod"),
        source="convert_to_quant: Qwen-Image's list with all modulation",
    ),
)
