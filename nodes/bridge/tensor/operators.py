"""The operators of a quantized weight: what PyTorch calls on a tensor of our layout.

Importing this file registers them with comfy-kitchen's ``QuantizedTensor``. An operator without a
handler here dequantizes.

Tested by tests/nodes/bridge/tensor/test_layout.py.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import torch
import torch.nn.functional as F
from comfy.quant_ops import QuantizedTensor, register_layout_op
from comfy_kitchen.tensor.base import dequantize_args

from ....quant_core.formats import QuantizedWeight
from ..lora.changes import Change
from .exact_steps import as_computed
from .layout import LAYOUT, GraphQuantLayout, is_ours, weight_of
from .native import is_native, native_linear

aten = torch.ops.aten


def linear(
    x: torch.Tensor,
    weight: QuantizedTensor,
    bias: torch.Tensor | None,
    stored: QuantizedWeight | None = None,
) -> torch.Tensor:
    """``x @ W.T + bias`` for x [..., K] and a weight [N, K] of our layout, its Change included.

    stored: ``weight_of`` the weight, where that is at hand.
    """
    params = weight._params
    stored = as_computed(stored or weight_of(weight._qdata, params))
    change = Change.of(params)
    if change is None:
        return _product(stored, x, bias)
    if change.is_low_rank:
        factors = change.lora_up.to(x.dtype), change.lora_down.to(x.dtype)
        branched = stored.format.with_low_rank(stored, *factors)
        if branched is not None:
            return _product(branched, x, bias)
        if not is_native(stored.format, x):
            return stored.format.linear_with_low_rank(x, stored, bias, *factors)
    return change.linear(x, bias, partial(_product, stored))


def table_rows(weight: QuantizedTensor, rows: torch.Tensor) -> torch.Tensor:
    """The rows ``rows`` [n] of a table of our layout as [n, K] in its dtype, its Change included.
    No other row is decoded."""
    stored = weight_of(weight._qdata, weight._params)
    found = stored.format.take_rows(stored, rows).dequantize(weight.dtype)
    change = Change.of(weight._params)
    return found if change is None else change.apply_to_rows(found, rows)


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


@register_layout_op(aten.embedding.default, GraphQuantLayout)
def _handle_embedding(qt, args, kwargs):
    weight, rows, *_ = args
    return table_rows(weight, rows.flatten()).view(*rows.shape, weight.shape[-1])


@register_layout_op(aten.to.device, GraphQuantLayout)
def _handle_to_device(qt, args, kwargs):
    """``to(device, dtype)`` in inference mode; the base class would answer by dequantizing."""
    tensor, device, dtype, *more = args
    moved = tensor.to(device=device).to(dtype=dtype)
    copy = kwargs.get("copy", len(more) > 1 and more[1])
    return moved.clone() if copy and moved._qdata is tensor._qdata else moved


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
