"""What the carriers share: they multiply, change dtype and take new values as their format does.

torchao's own products differ from the formats': its INT8 multiplies raw codes in the input's dtype,
which float16 cannot hold, its FP8 needs one dtype on both sides. So a carrier is a torchao tensor
by class and by what it stores, and calls the format for every product.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..formats import QuantizedWeight
from ..kernels import is_traced

aten = torch.ops.aten

_TO = (
    aten._to_copy.default,
    aten.to.dtype,
    aten.to.device,
    aten.to.dtype_layout,
    aten.to.other,
)

# What FSDP2 and tensor parallelism divide a weight by.
_DIVISIONS = (aten.split.Tensor, aten.split_with_sizes.default, aten.new_zeros.default)


def computed_by_format(cls: type[torch.Tensor]) -> type[torch.Tensor]:
    """Class decorator for a torchao tensor that has ``quantized_weight()``, and names the attribute
    that holds its dtype in ``dtype_attribute``."""
    cls.implements(aten.linear.default)(_linear)
    cls.implements_torch_function(F.linear)(_linear)
    cls.implements_torch_function([F.conv1d, F.conv2d, F.conv3d])(_convolution)
    cls.implements(list(_TO))(_to)
    cls.implements(aten.copy_.default)(_copy)
    cls.implements(list(_DIVISIONS))(_refuse_to_divide)
    cls.implements_torch_function(torch.Tensor.storage)(_refuse_to_save)
    _take_itself(cls)
    return cls


def _take_itself(cls: type[torch.Tensor]) -> None:
    """Let ``cls(tensor, requires_grad=False)`` be a parameter of ``tensor``, one of its own.

    nn.Parameter has that form, and accelerate makes parameters by the class that it finds
    (``set_module_tensor_to_device``), which sequential CPU offload does at every call.
    """
    make, fill = cls.__new__, cls.__init__

    def new(kind, *args, **kwargs):
        if args and isinstance(args[0], cls):
            return nn.Parameter(*args, **{"requires_grad": False, **kwargs})
        return make(kind, *args, **kwargs)

    def init(self, *args, **kwargs):
        if not (args and isinstance(args[0], cls)):
            fill(self, *args, **kwargs)

    cls.__new__, cls.__init__ = new, init


def _refuse_to_divide(func, types, args, kwargs):
    raise NotImplementedError(
        "A quantized weight cannot be divided like a plain one. With fully_shard pass "
        "ignored_params=quantized_parameters(model), with parallelize_module use QuantizedColwise "
        "and QuantizedRowwise, all of quant_core.applying.parallel."
    )


def _refuse_to_save(func, types, args, kwargs):
    # What writes safetensors asks for it after untyped_storage().data_ptr() has failed.
    raise RuntimeError(
        "A quantized weight is several tensors, which save_pretrained cannot write. Save the "
        "pipeline with quant_core.save_pipeline(pipe, folder), or use torch.save."
    )


def _linear(func, types, args, kwargs):
    x, weight, bias, _, _ = _operands(args, kwargs)
    if not hasattr(weight, "quantized_weight"):
        return F.linear(x, weight, bias)
    stored = weight.quantized_weight()
    learns = x.requires_grad or (bias is not None and bias.requires_grad)
    if learns and torch.is_grad_enabled() and not is_traced(x):
        return _Product.apply(x, bias, stored)
    return stored.format.linear(x, stored, bias)


def _convolution(func, types, args, kwargs):
    x, weight, bias, others, named = _operands(args, kwargs)
    if hasattr(weight, "quantized_weight"):
        weight = weight.dequantize(x.dtype)
    return func(x, weight, bias, *others, **named)


def _operands(args: tuple, kwargs: dict[str, Any]):
    """Input, weight and bias, given by position or by name, and all other arguments. An input that
    is quantized itself is read as a plain tensor."""
    named = {**dict(zip(("input", "weight", "bias"), args, strict=False)), **kwargs}
    x, weight, bias = named.pop("input"), named.pop("weight"), named.pop("bias", None)
    if hasattr(x, "quantized_weight"):
        x = x.dequantize()
    return x, weight, bias, args[3:], named


class _Product(torch.autograd.Function):
    """The format's product with gradients of input and bias, those of the dequantized weight: the
    rounding of activations passes them straight through. The weight has none."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, bias: torch.Tensor | None, weight: QuantizedWeight):
        ctx.weight = weight
        return weight.format.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        x = bias = None
        if ctx.needs_input_grad[0]:
            x = gradient @ ctx.weight.dequantize(gradient.dtype)
        if ctx.needs_input_grad[1]:
            bias = gradient.flatten(0, -2).sum(0)
        return x, bias, None


def _to(func, types, args, kwargs):
    """``tensor.to``: moves the parts; a dtype changes only what the weight presents itself as."""
    tensor, *others = args
    others += [kwargs[key] for key in ("device", "dtype", "other") if kwargs.get(key) is not None]
    device, dtype = tensor.device, tensor.dtype
    for value in others:
        if isinstance(value, torch.Tensor):
            device, dtype = value.device, value.dtype
        elif isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, torch.device | str):
            device = torch.device(value)
    if not dtype.is_floating_point or dtype.itemsize == 1:
        raise NotImplementedError(
            f"A quantized weight cannot become {dtype}. Call dequantize() first, then .to({dtype})."
        )
    copies = func is aten._to_copy.default or kwargs.get("copy", False)
    if not copies and (device, dtype) == (tensor.device, tensor.dtype):
        return tensor
    names, attributes = tensor.__tensor_flatten__()
    non_blocking = kwargs.get("non_blocking", False)
    parts = {
        name: getattr(tensor, name).to(device, non_blocking=non_blocking, copy=copies)
        for name in names
    }
    attributes = {**attributes, tensor.dtype_attribute: dtype}
    return type(tensor).__tensor_unflatten__(parts, attributes, None, None)


def _copy(func, types, args, kwargs):
    """Plain values are rounded to the format, a quantized weight's are read by a plain tensor; of
    two quantized weights of one format and shape the parts are copied."""
    target, source = args[:2]
    if not hasattr(target, "quantized_weight"):
        return target.copy_(source.dequantize(target.dtype))
    into = target.quantized_weight()
    if hasattr(source, "quantized_weight"):
        weight = source.quantized_weight()
        if weight.format != into.format:
            weight = into.format.quantize(weight.dequantize(torch.float32))
    else:
        weight = into.format.quantize(source)
    if weight.shape != into.shape:
        raise ValueError(
            f"A weight of {list(weight.shape)} does not fit one of {list(into.shape)}. "
            "Replace the parameter instead of copying into it."
        )
    for name, part in into.tensors.items():
        part.copy_(weight.tensors[name])
    return target
