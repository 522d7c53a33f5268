"""A quantized Linear computed without the detour of tensor subclasses.

``F.linear`` on a QuantizedTensor goes through PyTorch's and comfy-kitchen's dispatch, and stock's
cast of a weight that needs none through a dozen questions more: some 20 microseconds a call, which
is more than a small layer's product takes. Where nothing is pending the format is called at once.
"""

from __future__ import annotations

import torch
from comfy.ops import disable_weight_init, run_every_op
from comfy.quant_ops import QuantizedTensor
from torch import nn

from ....quant_core.formats import QuantizedWeight
from .layout import STORED, is_ours, weight_of
from .operators import linear

_STOCK_FORWARD = disable_weight_init.Linear.forward


def computes_directly(cls: type[nn.Module]) -> bool:
    """Whether a layer class's forward is stock's Linear, which ``direct_linear`` stands in for."""
    return getattr(cls, "forward", None) is _STOCK_FORWARD


def direct_linear(layer: nn.Module, x: torch.Tensor) -> torch.Tensor | None:
    """``layer(x)``; None where the layer's own forward has to run, because a patch, a cast, dynamic
    VRAM, a gradient or torch.compile is involved."""
    if torch.compiler.is_compiling() or layer.weight_function or layer.bias_function:
        return None
    parameters = layer._parameters  # a module's attributes are found slowly
    weight, bias = parameters["weight"], parameters["bias"]
    if not is_ours(weight) or type(x) is not torch.Tensor or "_v" in layer.__dict__:
        return None
    device, dtype = x.device, x.dtype
    if weight._qdata.device != device or weight._params.orig_dtype != dtype:
        return None
    if bias is not None and (bias.device != device or bias.dtype != dtype):
        return None
    if torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
        return None
    run_every_op()
    return linear(x, weight, bias, _stored(weight))


def _stored(weight: QuantizedTensor) -> QuantizedWeight:
    """``weight_of`` it, kept with the params that it was made of."""
    params = weight._params
    known = params.__dict__.get(STORED)
    if known is None or known.qdata is not weight._qdata:
        known = weight_of(weight._qdata, params)
        object.__setattr__(params, STORED, known)
    return known
