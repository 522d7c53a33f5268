"""Finds which library quantized a file, and the layers in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...formats.float8 import fits_scaled_mm
from ..checks import fault
from ..reader import TensorFiles
from . import bitsandbytes, convert_to_quant, modelopt, nunchaku, rotated_files, torchao
from .layer import ForeignLayer

# ModelOpt's files have no mark of their own, so they come last.
_RECOGNISERS = (
    torchao.recognise,
    bitsandbytes.recognise,
    rotated_files.recognise,
    convert_to_quant.recognise,
    modelopt.recognise,
)

# What only a quantized layer has, by the last part of its name: bitsandbytes' and other parts.
_BITSANDBYTES = frozenset(("SCB", "absmax", "nested_absmax", "nested_quant_map", "quant_map"))
_PARTS = _BITSANDBYTES | frozenset(
    (
        "input_scale",
        "pre_quant_scale",
        "weight_codebook",
        "weight_correction",
        "weight_format",
        "weight_s_channel",
        "weight_s_rel",
        "weight_scale",
        "weight_scale_2",
        "weight_scale_inv",
        "weight_zero_point",
    )
)


@dataclass(frozen=True)
class ForeignFile:
    """The layers that another library quantized in a file, and its other tensors.

    layers: by name, as the file has it. plain: the names of all other tensors.
    """

    layers: Mapping[str, ForeignLayer] = field(default_factory=dict)
    plain: tuple[str, ...] = ()


def find_foreign(files: TensorFiles, fp8_matmul: bool = True) -> ForeignFile | None:
    """Finds what another library quantized in ``files``; None where no library's format is
    recognised.

    fp8_matmul: whether FP8 by FP8 can be multiplied here. Where it cannot, or where a shape does
    not allow it, such layers are weight-only.

    StorageError: a layer lacks a part, or a part belongs to no layer, or they are nunchaku's.
    """
    nunchaku.refuse(files)
    layers = next(filter(None, (recognise(files) for recognise in _RECOGNISERS)), {})
    taken = {name for layer in layers.values() for name in layer.tensors}
    plain = tuple(name for name in files.specs if name not in taken)
    for name in plain:
        # In files that no library is known for, ComfyUI's own parts are checked by their markers.
        if name.rpartition(".")[2] in (_PARTS if layers else _BITSANDBYTES):
            raise fault(files, f"has {name}, which belongs to no quantized layer in it")
    return ForeignFile(_runnable(layers, fp8_matmul), plain) if layers else None


def _runnable(layers: Mapping[str, ForeignLayer], fp8_matmul: bool) -> dict[str, ForeignLayer]:
    return {
        name: layer if fp8_matmul and fits_scaled_mm(layer.shape) else layer.weight_only()
        for name, layer in layers.items()
    }
