"""One ComfyUI ``QuantizedTensor`` layout for every format of ours.

ComfyUI's memory management knows ``QuantizedTensor`` and no other tensor class: it moves, pins,
counts and patches these. The layout adds what the stock ones lack: any ``Format`` of quant_core,
and a LoRA's two factors beside the codes, so that adding and removing one rounds nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from comfy.quant_ops import QuantizedLayout, QuantizedTensor, register_layout_class
from comfy_kitchen.tensor.base import BaseLayoutParams

from ....quant_core.formats import Format, QuantizedWeight
from ....quant_core.formats.base import OPTIONAL_PARTS
from ..lora.adapters import PatchSource
from ..lora.changes import FIELDS as CHANGE_FIELDS
from ..lora.changes import Change
from ..lora.search import find_change

LAYOUT = "GraphQuantLayout"

# Of a layer beside its codes.
TENSOR_FIELDS = ("scale", *OPTIONAL_PARTS, *CHANGE_FIELDS)

# Beside the fields of Params: the QuantizedWeight that ``direct`` made of them.
STORED = "_stored"


class GraphQuantLayout(QuantizedLayout):
    """ComfyUI's view of a quantized weight of any Format: codes, scales and a Change beside
    them."""

    @dataclass(frozen=True)
    class Params(BaseLayoutParams):
        """All of a weight but its codes. row_gain to kron_right: a Change. patches: where to look
        for the adapters behind it. undo: puts back the weight that a scheduled LoRA (a hook)
        replaced."""

        format: Format | None = None
        zero_point: torch.Tensor | None = None
        scale_2: torch.Tensor | None = None
        input_scale: torch.Tensor | None = None
        codebook: torch.Tensor | None = None
        smooth_factor: torch.Tensor | None = None
        proj_up: torch.Tensor | None = None
        proj_down: torch.Tensor | None = None
        pre_quant_scale: torch.Tensor | None = None
        row_gain: torch.Tensor | None = None
        column_gain: torch.Tensor | None = None
        lora_up: torch.Tensor | None = None
        lora_down: torch.Tensor | None = None
        kron_left: torch.Tensor | None = None
        kron_right: torch.Tensor | None = None
        transposed: bool = False
        patches: PatchSource | None = None
        undo: Callable[[], None] | None = None

        def _tensor_fields(self) -> list[str]:
            return [name for name in TENSOR_FIELDS if getattr(self, name) is not None]

        def copy_from(self, src: GraphQuantLayout.Params, non_blocking: bool = False) -> None:
            """As the base class, but the source may have a LoRA where we have none, or none."""
            # ComfyUI takes a hook's LoRA off by a copy into weight.data, which shares the codes but
            # has params of its own.
            if self.undo is not None and src.undo is None:
                self.undo()
            self.__dict__.pop(STORED, None)
            device = self.scale.device
            for field in dataclasses.fields(self):
                old, new = getattr(self, field.name), getattr(src, field.name)
                if not isinstance(new, torch.Tensor):
                    object.__setattr__(self, field.name, new)
                elif isinstance(old, torch.Tensor) and old.shape == new.shape:
                    old.copy_(new, non_blocking=non_blocking)
                else:
                    object.__setattr__(self, field.name, new.to(device))

    @classmethod
    def quantize(
        cls,
        tensor: torch.Tensor,
        format: Format | None = None,
        base: QuantizedTensor | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, Params]:
        """Round ``tensor`` to ``format``; or, where ``base`` is the weight it was patched from,
        keep base's codes and carry the change beside them. ComfyUI's other options
        (scale, stochastic_rounding) have no meaning here: rounding is to nearest."""
        if base is None:
            return _leaves(format.quantize(tensor), tensor.dtype)
        carried = _carry_change(tensor, base)
        qdata, params = carried or _leaves(format.quantize(tensor), tensor.dtype)
        return qdata, dataclasses.replace(params, patches=base._params.patches)

    @classmethod
    def dequantize(cls, qdata: torch.Tensor, params: Params) -> torch.Tensor:
        """The plain weight [N, K] or [N, ...] in the dtype it presents itself as, with its
        Change."""
        weight = weight_of(qdata, params).dequantize(params.orig_dtype)
        change = Change.of(params)
        return weight if change is None else change.apply(weight)

    @classmethod
    def get_plain_tensors(cls, qtensor: QuantizedTensor) -> tuple[torch.Tensor, ...]:
        """Codes and scales, which comfy-kitchen's own kernels would be given."""
        return qtensor._qdata, qtensor._params.scale

    @classmethod
    def state_dict_tensors(cls, qdata: torch.Tensor, params: Params) -> dict[str, torch.Tensor]:
        """Everything that a state dict holds, by what follows the weight's name."""
        return {"": qdata} | {f"_{name}": getattr(params, name) for name in params._tensor_fields()}

    @classmethod
    def requantize_kwargs(cls, qtensor: QuantizedTensor) -> dict[str, Any]:
        """What ``quantize`` needs to know of the weight that was patched."""
        return {"format": qtensor._params.format, "base": qtensor}


register_layout_class(LAYOUT, GraphQuantLayout)


def quantized_tensor(
    weight: QuantizedWeight, dtype: torch.dtype, patches: PatchSource | None = None
) -> QuantizedTensor:
    """``weight`` as ComfyUI carries it, presenting itself as a tensor of ``dtype``."""
    qdata, params = _leaves(weight, dtype)
    return QuantizedTensor(qdata, LAYOUT, dataclasses.replace(params, patches=patches))


def is_ours(tensor: torch.Tensor | None) -> bool:
    """Whether ``tensor`` is a quantized weight of our layout."""
    return isinstance(tensor, QuantizedTensor) and tensor._layout_cls == LAYOUT


def weight_of(qdata: torch.Tensor, params: GraphQuantLayout.Params) -> QuantizedWeight:
    """The stored weight without its LoRA, never transposed."""
    shape = params.orig_shape[::-1] if params.transposed else params.orig_shape
    parts = {name: getattr(params, name) for name in ("scale", *OPTIONAL_PARTS)}
    return QuantizedWeight.of_parts(
        params.format, {"qdata": qdata, **parts}, tuple(shape), params.orig_dtype
    )


def _leaves(
    weight: QuantizedWeight, dtype: torch.dtype
) -> tuple[torch.Tensor, GraphQuantLayout.Params]:
    parts = weight.tensors
    qdata = parts.pop("qdata")
    params = GraphQuantLayout.Params(
        orig_dtype=dtype, orig_shape=weight.shape, format=weight.format, **parts
    )
    return qdata, params


def _carry_change(
    tensor: torch.Tensor, base: QuantizedTensor
) -> tuple[torch.Tensor, GraphQuantLayout.Params] | None:
    """``base`` with the difference to ``tensor`` beside it; None where that must be rounded in, as
    that of a patch must which widens the weight."""
    if tensor.shape != base.shape:
        return None
    qdata = base._qdata.to(tensor.device)
    params = dataclasses.replace(
        base._params.to_device(tensor.device), orig_dtype=tensor.dtype, **Change().parts()
    )
    original = weight_of(qdata, params).dequantize(tensor.dtype)
    change = find_change(original, tensor, params.patches)
    if change is None:
        return None
    return qdata, dataclasses.replace(params, **change.to(base._params.orig_dtype).parts())
