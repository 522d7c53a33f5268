"""One ComfyUI ``QuantizedTensor`` layout for every format of ours.

ComfyUI's memory management knows ``QuantizedTensor`` and no other tensor class: it moves, pins,
counts and patches these. The layout adds what the stock ones lack: any ``Format`` of quant_core,
and a LoRA's two factors beside the codes, so that adding and removing one rounds nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
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

from ...quant_core.formats import Format, QuantizedWeight
from .low_rank import low_rank_factors

LAYOUT = "GraphQuantLayout"

aten = torch.ops.aten


class GraphQuantLayout(QuantizedLayout):
    """qdata and scale as ``format`` defines them."""

    @dataclass(frozen=True)
    class Params(BaseLayoutParams):
        """lora_up [N, r] and lora_down [r, K]: an unfused change of the weight, up @ down."""

        format: Format | None = None
        zero_point: torch.Tensor | None = None
        lora_up: torch.Tensor | None = None
        lora_down: torch.Tensor | None = None
        transposed: bool = False

        def _tensor_fields(self) -> list[str]:
            fields = ("scale", "zero_point", "lora_up", "lora_down")
            return [name for name in fields if getattr(self, name) is not None]

        def copy_from(self, src: GraphQuantLayout.Params, non_blocking: bool = False) -> None:
            """As the base class, but the source may have a LoRA where we have none, or none."""
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
        """Round ``tensor`` to ``format``; or, where ``base`` is the weight it was patched from, keep
        base's codes and carry the change as low-rank factors. ComfyUI's other options (scale,
        stochastic_rounding) have no meaning here: rounding is to nearest."""
        if base is not None:
            carried = _carry_change(tensor, base)
            if carried is not None:
                return carried
        return _leaves(format.quantize(tensor), tensor.dtype)

    @classmethod
    def dequantize(cls, qdata: torch.Tensor, params: Params) -> torch.Tensor:
        weight = weight_of(qdata, params).dequantize(params.orig_dtype)
        if params.lora_up is None:
            return weight
        return weight.add_(params.lora_up.to(weight) @ params.lora_down.to(weight))

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


def quantized_tensor(weight: QuantizedWeight, dtype: torch.dtype) -> QuantizedTensor:
    """``weight`` as ComfyUI carries it, presenting itself as a tensor of ``dtype``."""
    qdata, params = _leaves(weight, dtype)
    return QuantizedTensor(qdata, LAYOUT, params)


def is_ours(tensor: torch.Tensor | None) -> bool:
    return isinstance(tensor, QuantizedTensor) and tensor._layout_cls == LAYOUT


def weight_of(qdata: torch.Tensor, params: GraphQuantLayout.Params) -> QuantizedWeight:
    """The stored weight without its LoRA, never transposed."""
    shape = params.orig_shape[::-1] if params.transposed else params.orig_shape
    return QuantizedWeight(
        params.format, qdata, params.scale, params.zero_point, tuple(shape), params.orig_dtype
    )


def _leaves(
    weight: QuantizedWeight, dtype: torch.dtype
) -> tuple[torch.Tensor, GraphQuantLayout.Params]:
    params = GraphQuantLayout.Params(
        scale=weight.scale,
        orig_dtype=dtype,
        orig_shape=weight.shape,
        format=weight.format,
        zero_point=weight.zero_point,
    )
    return weight.qdata, params


def _carry_change(
    tensor: torch.Tensor, base: QuantizedTensor
) -> tuple[torch.Tensor, GraphQuantLayout.Params] | None:
    """``base`` with the difference to ``tensor`` as factors; None where that is not low-rank."""
    qdata = base._qdata.to(tensor.device)
    params = dataclasses.replace(
        base._params.to_device(tensor.device), orig_dtype=tensor.dtype, lora_up=None, lora_down=None
    )
    if tensor.dim() != 2:
        return None
    original = weight_of(qdata, params).dequantize(torch.float32)
    factors = low_rank_factors(tensor.float() - original)
    if factors is None:
        return (qdata, params) if torch.equal(original.to(tensor.dtype), tensor) else None
    up, down = (factor.to(base._params.orig_dtype) for factor in factors)
    return qdata, dataclasses.replace(params, lora_up=up, lora_down=down)


def _linear(x: torch.Tensor, weight: QuantizedTensor, bias: torch.Tensor | None) -> torch.Tensor:
    params = weight._params
    stored = weight_of(weight._qdata, params)
    y = params.format.linear(x, stored, bias)
    if params.lora_up is not None:
        y = y + F.linear(F.linear(x, params.lora_down.to(x.dtype)), params.lora_up.to(x.dtype))
    return y


@register_layout_op(aten.linear.default, GraphQuantLayout)
def _handle_linear(qt, args, kwargs):
    x, weight, *rest = args
    bias = rest[0] if rest else kwargs.get("bias")
    if not is_ours(weight) or isinstance(x, QuantizedTensor):
        return F.linear(*dequantize_args((x, weight, bias)))
    return _linear(x, weight, bias)


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
    return _linear(x, weight, None)


@register_layout_op(aten.addmm.default, GraphQuantLayout)
def _handle_addmm(qt, args, kwargs):
    bias, x, weight = args
    if not is_ours(weight) or not weight._params.transposed or isinstance(x, QuantizedTensor):
        return torch.addmm(*dequantize_args((bias, x, weight)), **kwargs)
    return _linear(x, weight, bias)
