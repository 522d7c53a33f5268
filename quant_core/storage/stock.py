"""ComfyUI's own quantized files: what their markers promise, checked before anything is loaded.

ComfyUI ignores a scale that no marker announces, with a warning, so a file whose scales lost their
markers would load as wrong weights.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from ..presets import CHECKPOINT_PREFIX
from .checks import fault, read_json
from .header import TensorSpec
from .reader import TensorFiles

STOCK_MARKER = "comfy_quant"
METADATA = "_quantization_metadata"
_FLAG = "scaled_fp8"  # the older kind: one flag for the whole model
_SCALES = frozenset(
    ("weight_scale", "weight_scale_2", "weight_scale_inv", "weight_zero_point", "scale_weight")
)

# ComfyUI 0.30.0, comfy/ops.py: the dtype of the codes, and the scales that must be there.
_FORMATS: dict[str, tuple[torch.dtype, tuple[str, ...]]] = {
    "float8_e4m3fn": (torch.float8_e4m3fn, ("weight_scale",)),
    "float8_e5m2": (torch.float8_e5m2, ("weight_scale",)),
    "mxfp8": (torch.float8_e4m3fn, ("weight_scale",)),
    "nvfp4": (torch.uint8, ("weight_scale", "weight_scale_2")),
    "int8_tensorwise": (torch.int8, ("weight_scale",)),
    "convrot_w4a4": (torch.int8, ("weight_scale",)),
    "asym_w4a8_int8": (torch.int8, ("weight_s_rel", "weight_s_channel")),
}

# The first ComfyUI that reads a format, where 0.30.0 does not; None where no release was found.
SINCE: dict[str, str | None] = {
    "asym_w4a8_int8": "0.31.0",
    "awq_w4a16": "0.38.0",
    "svdquant_w4a4": None,
    "int8_blockwise": None,
}


def is_marked(files: TensorFiles) -> bool:
    """Whether a marker in ``files`` says that they hold ComfyUI's own formats."""
    if METADATA in files.metadata:
        return True
    return any(name.rpartition(".")[2] in (STOCK_MARKER, _FLAG) for name in files.specs)


def check_stock_layers(files: TensorFiles, others: Collection[str] = ()) -> dict[str, str]:
    """Checks the layers that ComfyUI will read as quantized; returns their formats by layer name.

    others: layers, by their names in the file, whose scales ComfyUI does not read. StorageError: a
    marker without its weight, codes of another dtype than the marker says, a scale that is missing,
    a scale without a marker. A format that is unknown here is left to ComfyUI to judge.
    """
    marked = {layer: _format_of(files, layer, values) for layer, values in markers(files).items()}
    for layer, name in marked.items():
        if name in _FORMATS:
            _check(files, layer, name)
    flags = [n.removesuffix(_FLAG) for n in files.specs if n == _FLAG or n.endswith(f".{_FLAG}")]
    for name in files.specs:
        layer, _, part = name.rpartition(".")
        if part not in _SCALES or layer in marked or layer in others:
            continue
        if not (part == "scale_weight" and any(name.startswith(flag) for flag in flags)):
            raise fault(files, f"has {name}, but nothing says how {layer} is quantized")
        if f"{layer}.weight" not in files.specs:
            raise fault(files, f"has {name}, but no {layer}.weight")
        marked[layer] = "float8_e4m3fn"
    _require_owners(files, {*marked, *others})
    return marked


# What only one library calls the parts of a layer, by the last part of a name.
_MAKERS = {
    "SDNQ": ("scale", "zero_point", "svd_up", "svd_down"),
    "GPTQ or AWQ": ("qweight", "qzeros", "scales", "g_idx"),
    "HQQ": ("W_q", "meta"),
    "nunchaku": ("wscales", "wzeros", "smooth_factor", "proj_down", "proj_up"),
    "optimum-quanto": ("_data", "_scale", "_shift"),
}


def _require_owners(files: TensorFiles, owned: Collection[str]) -> None:
    """Raises StorageError for integer weights that no marker describes: ComfyUI would use the codes
    as weights."""
    for name, spec in files.specs.items():
        layer, _, part = name.rpartition(".")
        codes = not (spec.dtype.is_floating_point or spec.dtype.is_complex)
        if part == "weight" and codes and layer not in owned:
            raise fault(
                files,
                f"has {name} as {spec.dtype}, and nothing that is read here says what its codes "
                f"mean{maker_of(files, layer)}",
            )


def maker_of(files: TensorFiles, layer: str) -> str:
    """ "; SDNQ writes such files" where the names beside ``layer``'s weight are a library's own."""
    beside = {
        name.removeprefix(f"{layer}.").rpartition(".")[2]
        for name in files.specs
        if name.startswith(f"{layer}.")
    }
    return next(
        (f"; {who} writes such files" for who, own in _MAKERS.items() if beside & {*own}), ""
    )


def markers(files: TensorFiles) -> dict[str, Any]:
    """What ComfyUI's markers say of each layer, unchecked: of the metadata first, then of the
    tensors. StorageError for one that is not a JSON object."""
    described = read_json(files, METADATA, files.metadata.get(METADATA, '{"layers": {}}'))
    layers = described.get("layers")
    if not isinstance(layers, dict):
        raise fault(files, f"has {METADATA} without layers")
    layers = {_full_name(files, layer): values for layer, values in layers.items()}
    for name in files.specs:
        if name.endswith(f".{STOCK_MARKER}"):
            values = read_json(files, name)
            layers.setdefault(name.removesuffix(f".{STOCK_MARKER}"), values)
    return layers


def _full_name(files: TensorFiles, layer: str) -> str:
    """With the prefix of a checkpoint, which the metadata may leave out."""
    with_prefix = f"{CHECKPOINT_PREFIX}{layer}"
    return with_prefix if f"{with_prefix}.weight" in files.specs else layer


def _format_of(files: TensorFiles, layer: str, values: Any) -> str:
    name = values.get("format") if isinstance(values, dict) else None
    if not isinstance(name, str):
        raise fault(files, f"marks {layer} as quantized, but names no format")
    if f"{layer}.weight" not in files.specs:
        raise fault(files, f"marks {layer} as {name}, but has no {layer}.weight")
    return name


def _check(files: TensorFiles, layer: str, name: str) -> None:
    dtype, scales = _FORMATS[name]
    weight = files.specs[f"{layer}.weight"]
    if weight.dtype != dtype:
        raise fault(files, f"marks {layer} as {name}, but its weight is {weight.dtype}")
    for scale in scales:
        spec = files.specs.get(f"{layer}.{scale}")
        if spec is None:
            raise fault(files, f"marks {layer} as {name}, but has no {layer}.{scale}")
        if not _fits(spec, weight, name):
            raise fault(files, f"has {spec.name} of shape {list(spec.shape)}, wrong for {name}")


def _fits(scale: TensorSpec, weight: TensorSpec, name: str) -> bool:
    """Whether the scale's shape goes with a 2-d weight; ComfyUI knows banks of experts besides."""
    count = scale.nbytes // scale.dtype.itemsize
    if len(weight.shape) != 2 or name in ("mxfp8", "nvfp4", "asym_w4a8_int8"):
        return count > 0
    return count == 1 or (name in ("int8_tensorwise", "convrot_w4a4") and count == weight.shape[0])
