"""One ComfyUI ``QuantizedTensor`` layout for every format of ours.

ComfyUI's memory management knows ``QuantizedTensor`` and no other tensor class: it moves, pins,
counts and patches these. The layout adds what the stock ones lack: any ``Format`` of quant_core,
and a LoRA's two factors beside the codes, so that adding and removing one rounds nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from comfy.quant_ops import (
    QuantizedLayout,
    QuantizedTensor,
    register_layout_class,
    register_layout_op,
)
from comfy_kitchen.tensor.base import BaseLayoutParams, dequantize_args

from ....quant_core.formats import Format, QuantizedWeight
from ....quant_core.formats.base import OPTIONAL_PARTS
from ..lora.adapters import PatchSource
from ..lora.changes import FIELDS as CHANGE_FIELDS
from ..lora.changes import Change
from ..lora.low_rank import TOLERANCE, low_rank_factors
from .native import is_native, native_linear

LAYOUT = "GraphQuantLayout"

# Of a layer beside its codes.
TENSOR_FIELDS = ("scale", *OPTIONAL_PARTS, *CHANGE_FIELDS)

# Beside the fields of Params: the QuantizedWeight that ``direct`` made of them.
STORED = "_stored"

aten = torch.ops.aten


class GraphQuantLayout(QuantizedLayout):
    """The parts of a weight as ``format`` defines them."""

    @dataclass(frozen=True)
    class Params(BaseLayoutParams):
        """row_gain to kron_right: a Change beside the codes. patches: where to look for the
        adapters behind one. undo: puts back the weight that a scheduled LoRA (a hook) replaced."""

        format: Format | None = None
        zero_point: torch.Tensor | None = None
        scale_2: torch.Tensor | None = None
        input_scale: torch.Tensor | None = None
        codebook: torch.Tensor | None = None
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
        weight = weight_of(qdata, params).dequantize(params.orig_dtype)
        change = Change.of(params)
        return weight if change is None else change.apply(weight)

    @classmethod
    def get_plain_tensors(cls, qtensor: QuantizedTensor) -> tuple[torch.Tensor, ...]:
        return qtensor._qdata, qtensor._params.scale

    @classmethod
    def state_dict_tensors(cls, qdata: torch.Tensor, params: Params) -> dict[str, torch.Tensor]:
        return {"": qdata} | {f"_{name}": getattr(params, name) for name in params._tensor_fields()}

    @classmethod
    def requantize_kwargs(cls, qtensor: QuantizedTensor) -> dict[str, Any]:
        return {"format": qtensor._params.format, "base": qtensor}


register_layout_class(LAYOUT, GraphQuantLayout)


def quantized_tensor(
    weight: QuantizedWeight, dtype: torch.dtype, patches: PatchSource | None = None
) -> QuantizedTensor:
    """``weight`` as ComfyUI carries it, presenting itself as a tensor of ``dtype``."""
    qdata, params = _leaves(weight, dtype)
    return QuantizedTensor(qdata, LAYOUT, dataclasses.replace(params, patches=patches))


def is_ours(tensor: torch.Tensor | None) -> bool:
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
    """``base`` with the difference to ``tensor`` beside it; None where that must be rounded in."""
    qdata = base._qdata.to(tensor.device)
    params = dataclasses.replace(
        base._params.to_device(tensor.device), orig_dtype=tensor.dtype, **Change().parts()
    )
    # In the dtype that the patch was added in, so that its rounding of the weight cancels out.
    original = weight_of(qdata, params).dequantize(tensor.dtype)
    if torch.equal(original, tensor):
        return qdata, params
    if tensor.dim() != 2:
        return None
    change, way = _find_change(tensor, original, params.patches)
    if params.patches is not None:
        params.patches.patchers.outcomes[way] += 1
    if change is None:
        return None
    return qdata, dataclasses.replace(params, **change.to(base._params.orig_dtype).parts())


def _find_change(
    tensor: torch.Tensor, original: torch.Tensor, patches: PatchSource | None
) -> tuple[Change | None, str]:
    """The change, and how it was found, in words."""
    if patches is not None:
        norm = torch.linalg.vector_norm(original, dtype=torch.float32).item()
        rounding = torch.finfo(tensor.dtype).eps * norm
        tolerance = TOLERANCE * Change().distance(original, tensor) + rounding
        known = patches.change(original, tensor, tolerance)
        if known is not None:
            return known, "unfused, by the adapters' own factors"
    factors = low_rank_factors(tensor.float() - original.float())
    if factors is None:
        return None, "dequantized, patched and rounded again to nearest"
    return Change(lora_up=factors[0], lora_down=factors[1]), "unfused, by low-rank factors found"


def linear(
    x: torch.Tensor,
    weight: QuantizedTensor,
    bias: torch.Tensor | None,
    stored: QuantizedWeight | None = None,
) -> torch.Tensor:
    """stored: ``weight_of`` it, where that is at hand."""
    params = weight._params
    product = partial(_product, stored or weight_of(weight._qdata, params))
    change = Change.of(params)
    return product(x, bias) if change is None else change.linear(x, bias, product)


def _product(weight: QuantizedWeight, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if is_native(weight.format, x):
        return native_linear(x, weight, bias)
    return weight.format.linear(x, weight, bias)


@register_layout_op(aten.linear.default, GraphQuantLayout)
def _handle_linear(qt, args, kwargs):
    x, weight, *rest = args
    bias = rest[0] if rest else kwargs.get("bias")
    if not is_ours(weight) or isinstance(x, QuantizedTensor):
        return F.linear(*dequantize_args((x, weight, bias)))
    return linear(x, weight, bias)


@register_layout_op(aten.to.device, GraphQuantLayout)
def _handle_to_device(qt, args, kwargs):
    """``to(device, dtype)`` in inference mode; the base class would answer by dequantizing."""
    tensor, device, dtype, *_ = args
    return tensor.to(device=device).to(dtype=dtype)


# torch.compile decomposes linear into a transpose and a matmul before it asks us.


@register_layout_op(aten.t.default, GraphQuantLayout)
def _handle_transpose(qt, args, kwargs):
    params = dataclasses.replace(
        qt._params, orig_shape=qt._params.orig_shape[::-1], transposed=not qt._params.transposed
    )
    return QuantizedTensor(qt._qdata, LAYOUT, params)


@register_layout_op(aten.mm.default, GraphQuantLayout)
def _handle_mm(qt, args, kwargs):
    x, weight = args
    if not is_ours(weight) or not weight._params.transposed or isinstance(x, QuantizedTensor):
        return torch.mm(*dequantize_args((x, weight)))
    return linear(x, weight, None)


@register_layout_op(aten.addmm.default, GraphQuantLayout)
def _handle_addmm(qt, args, kwargs):
    bias, x, weight = args
    if not is_ours(weight) or not weight._params.transposed or isinstance(x, QuantizedTensor):
        return torch.addmm(*dequantize_args((bias, x, weight)), **kwargs)
    alpha, beta = kwargs.get("alpha", 1), kwargs.get("beta", 1)
    if (alpha, beta) == (1, 1) and bias.dim() == 1:
        return linear(x, weight, bias)
    return torch.add(beta * bias, linear(x, weight, None), alpha=alpha)
