"""Who reads a model file: ComfyUI, this pack in it, or diffusers.

Tested by tests/nodes/bridge/saving/test_converted_encoders.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..detect import FLOAT8_DTYPES
from ..errors import StorageError
from ..planning.decisions import LayerPlan, Plan
from ..presets import CHECKPOINT_PREFIX, Recognised
from ..storage import TensorFiles, stock_marker
from .stored import StoredLayers

AUTO, STOCK, OURS = "auto", "stock", "graphquant"
FILE_FORMATS = (AUTO, STOCK, OURS)
ENCODER = "encoder"
# The tensors by which ComfyUI's loaders know the text encoders in which they look for quantized
# layers: T5-XXL and its kind, and language models. It drops "language_model." from their names.
_LOADED_QUANTIZED = (
    "encoder.block.23.layer.1.DenseReluDense.wi_1.weight",
    "encoder.block.23.layer.1.DenseReluDense.wi.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.0.linear_attn.in_proj_a.weight",
)


def is_private(plan: Plan, file_format: str) -> bool:
    """Whether a file of ``plan``'s layers is in this pack's own format.

    StorageError where ``file_format`` is "stock" and ComfyUI lacks a layer's format.
    """
    unknown = _unknown_to_stock(plan)
    if file_format == STOCK and unknown:
        raise StorageError(
            f"ComfyUI has no format for {len(unknown)} of {len(plan.quantized)} layers, such as "
            f"{unknown[0].name} ({unknown[0].format}). Write graphquant, or choose another method: "
            "int8, or fp8 with granularity per-tensor."
        )
    return file_format == OURS or bool(unknown)


def _unknown_to_stock(plan: Plan) -> list[LayerPlan]:
    """The layers of ``plan`` whose formats ComfyUI lacks."""
    return [la for la in plan.quantized if stock_marker(la.format, len(la.shape)) is None]


def require_reader(
    model: Recognised, names: Iterable[str], plan: Plan, file_format: str = AUTO
) -> None:
    """StorageError where ``model`` is a text encoder whose file no loader of ComfyUI would read.

    names: of the file's tensors. plan: by which it is quantized. A ``file_format`` of this pack's
    own, asked for by name, is for other readers.
    """
    if model.component != ENCODER or file_format == OURS:
        return
    elsewhere = "For load_pipeline of diffusers write --format graphquant."
    unknown = _unknown_to_stock(plan)
    if unknown:
        raise StorageError(
            f"ComfyUI reads no text encoder in {unknown[0].format}, as {unknown[0].name} is. "
            "Choose int8, mxfp8, nvfp4, or fp8-weight-only with granularity per-tensor. "
            f"{elsewhere}"
        )
    if not is_loaded_quantized(names):
        raise StorageError(
            f"ComfyUI's loaders read no quantized {model.architecture} of this size. Leave it "
            f"as it is. {elsewhere}"
        )


def is_loaded_quantized(names: Iterable[str]) -> bool:
    """Whether ComfyUI's loaders look for quantized layers in a text encoder of these names."""
    shortened = {name.replace("model.language_model.", "model.") for name in names}
    return not shortened.isdisjoint(_LOADED_QUANTIZED)


def readers_of(
    files: TensorFiles, stored: StoredLayers | None, model: Recognised, foreign: bool
) -> tuple[str, ...]:
    """Who reads ``files``, in sentences.

    stored: the layers that ComfyUI's or this pack's markers describe. foreign: whether another
    library wrote the file.
    """
    if foreign:
        return ("Load Quantized Model of this pack, and the library that wrote it.",)
    if stored.prefix and model.component == ENCODER:
        return ("load_pipeline of this pack, for diffusers. ComfyUI finds no text encoder in it.",)
    if stored.prefix:
        return ("Load Quantized Model of this pack. A ComfyUI without it finds no model.",)
    encoder = model.component == ENCODER
    loader = "Load CLIP" if encoder else "Load Diffusion Model"
    if model.prefix == CHECKPOINT_PREFIX:
        loader = "Load Checkpoint"
    if stored.layers or stored.unknown:
        if encoder and not is_loaded_quantized(files.specs):
            return ("ComfyUI's loaders read no quantized text encoder of this kind.",)
        formats = {stock_marker(layer.format)["format"] for layer in stored.layers.values()}
        told = ", ".join(sorted(formats | set(stored.unknown.values())))
        known = f"{loader} of any ComfyUI that knows {told}."
        return (known,) if encoder else (known, "Load Quantized Model.")
    if any(spec.dtype in FLOAT8_DTYPES for spec in files.specs.values()):
        return (f"{loader}: FP8 without scales, which has more error than FP8 with scales.",)
    return (f"{loader}: nothing in it is quantized.",)
