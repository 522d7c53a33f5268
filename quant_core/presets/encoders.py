"""Text encoders: what stays beside the embeddings, norms and heads of the component filter."""

from __future__ import annotations

from .preset import Preset

ENCODERS = (
    Preset(
        "t5",
        "T5, UMT5, mT5, ByT5",
        keep=("wo",),
        source="vLLM-Omni; transformers runs wo in float32, for its values grow large",
    ),
    Preset(
        "clip",
        "CLIP-L, CLIP-G, CLIP-H",
        keep=("*",),
        source="our judgement: small and sensitive, so nothing of it is quantized",
    ),
    Preset(
        "qwen",
        "Qwen2.5, Qwen2.5-VL, Qwen3, Qwen3-VL",
        keep=("visual",),
        source="published quantized Qwen-VL encoders leave the vision tower alone",
    ),
    Preset(
        "qwen35",
        "Qwen3.5",
        keep=("visual", "in_proj_a", "in_proj_b", "layers.0"),
        source="convert_to_quant, but for the last layer, whose number depends on the size",
    ),
    Preset(
        "gemma",
        "Gemma 2, 3, 4, T5Gemma",
        keep=(
            "vision_model",
            "audio_model",
            "multi_modal_projector",
            "audio_projector",
            "per_layer_input_gate",
            "per_layer_projection",
            "per_layer_model_projection",
        ),
        source="convert_to_quant",
    ),
    Preset(
        "llama",
        "Llama, Mistral, Ministral",
        keep=(),
        source="the component filter keeps what matters in a plain decoder",
    ),
)
