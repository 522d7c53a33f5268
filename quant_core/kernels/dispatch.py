"""Which way each kernel runs: in Triton on a GPU that has it, else in plain PyTorch.

Under torch.compile the plain twin is traced, which Inductor fuses with what comes before and after
it. FP8 weights are the exception: before SM 8.9 the code that Inductor makes does not compile, so
there the kernel is called, as the operator ``torch.ops.graphquant``. All are such operators, with
shapes for tracing and without gradients.
"""

from __future__ import annotations

import logging
from functools import lru_cache

import torch
from torch import Tensor

from . import launch, plain
from .blocks import is_traced
from .launch import SMALL_M, has_triton

log = logging.getLogger(__name__)

_GROUPS = "Tensor codes, Tensor scale, Tensor zero_point, int group_size"
_SCHEMAS = {
    "quantize_rows": "(Tensor x, ScalarType dtype) -> (Tensor, Tensor)",
    "quantize_tensor": "(Tensor x, ScalarType dtype) -> (Tensor, Tensor)",
    "dequantize_scaled": "(Tensor codes, Tensor scale, ScalarType dtype) -> Tensor",
    "dequantize_int4": f"({_GROUPS}, ScalarType dtype) -> Tensor",
    "scale_products": "(Tensor products, Tensor row_scale, Tensor column_scale, Tensor? bias, "
    "ScalarType dtype) -> Tensor",
    "int4_linear": f"(Tensor x, {_GROUPS}, Tensor? bias) -> Tensor",
}


def _shape_of_quantized_rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=dtype), x.new_empty((len(x), 1), dtype=torch.float32)


def _shape_of_quantized_tensor(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=dtype), x.new_empty((), dtype=torch.float32)


def _shape_of_scaled(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return codes.new_empty(codes.shape, dtype=dtype)


def _shape_of_int4(codes: Tensor, scale, zero_point, group_size, dtype: torch.dtype) -> Tensor:
    return codes.new_empty((codes.shape[0], 2 * codes.shape[1]), dtype=dtype)


def _shape_of_products(products: Tensor, row_scale, column_scale, bias, dtype) -> Tensor:
    return products.new_empty(products.shape, dtype=dtype)


def _shape_of_int4_linear(x: Tensor, codes: Tensor, scale, zero_point, group_size, bias) -> Tensor:
    return x.new_empty((*x.shape[:-1], codes.shape[0]))


_SHAPES = {
    "quantize_rows": _shape_of_quantized_rows,
    "quantize_tensor": _shape_of_quantized_tensor,
    "dequantize_scaled": _shape_of_scaled,
    "dequantize_int4": _shape_of_int4,
    "scale_products": _shape_of_products,
    "int4_linear": _shape_of_int4_linear,
}


def _register(name: str) -> None:
    """Once a process: a second copy of this package finds the operator of the first."""
    operator = f"graphquant::{name}"
    if hasattr(torch.ops.graphquant, name):
        return
    torch.library.define(operator, _SCHEMAS[name])
    torch.library.impl(operator, "cpu", getattr(plain, name))
    way = launch if has_triton() else plain
    torch.library.impl(operator, "cuda", getattr(way, name))
    # As register_fake would, which searches all modules for its caller: 20 ms each at start-up.
    torch.library.impl(operator, "meta", _SHAPES[name])


for _name in _SCHEMAS:
    _register(_name)

_ops = torch.ops.graphquant


def runs_triton(tensor: Tensor) -> bool:
    """Whether a kernel on ``tensor`` is one of Triton's."""
    return tensor.is_cuda and not is_traced(tensor) and triton_works(tensor.device)


@lru_cache
def triton_works(device: torch.device) -> bool:
    """Whether Triton runs on ``device``, tried once: it wants a GPU that it knows and, for its
    first kernel, a C compiler."""
    if not has_triton():
        return False
    try:
        codes, _ = launch.quantize_rows(torch.ones(1, 128, device=device), torch.int8)
    except Exception as problem:  # a compiler says no by any type
        log.warning("Triton does not run on %s, plain PyTorch does, slower: %s", device, problem)
        return False
    return bool((codes == 127).all())


def quantize_rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """See ``plain.quantize_rows``."""
    return (_ops if runs_triton(x) else plain).quantize_rows(x, dtype)


def quantize_tensor(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """See ``plain.quantize_tensor``."""
    return (_ops if runs_triton(x) else plain).quantize_tensor(x, dtype)


def dequantize_scaled(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """See ``plain.dequantize_scaled``."""
    untraceable = codes.is_cuda and codes.dtype != torch.int8 and has_triton()
    way = _ops if untraceable or runs_triton(codes) else plain
    return way.dequantize_scaled(codes, scale, dtype)


def dequantize_int4(
    codes: Tensor, scale: Tensor, zero_point: Tensor, group_size: int, dtype: torch.dtype
) -> Tensor:
    """See ``plain.dequantize_int4``."""
    way = _ops if runs_triton(codes) else plain
    return way.dequantize_int4(codes, scale, zero_point, group_size, dtype)


def scale_products(
    products: Tensor,
    row_scale: Tensor,
    column_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """See ``plain.scale_products``."""
    way = _ops if runs_triton(products) else plain
    return way.scale_products(products, row_scale, column_scale, bias, dtype)


def int4_linear(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    group_size: int,
    bias: Tensor | None,
) -> Tensor:
    """See ``plain.int4_linear``; x [..., K]. Up to SMALL_M rows one kernel does it all; of more,
    the weight is dequantized for the library's matmul, which the time of an image is spent in."""
    weight = (codes, scale, zero_point, group_size)
    if not runs_triton(x):
        return plain.int4_linear(x, *weight, bias)
    if x.numel() > SMALL_M * x.shape[-1]:
        return torch.nn.functional.linear(x, _ops.dequantize_int4(*weight, x.dtype), bias)
    y = _ops.int4_linear(x.reshape(-1, x.shape[-1]), *weight, bias)
    return y.view(*x.shape[:-1], len(codes))


def scaled_linear(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """See ``plain.scaled_linear``."""
    if not codes.is_cuda:
        return plain.scaled_linear(x, codes, scale, bias)
    return torch.nn.functional.linear(x, dequantize_scaled(codes, scale, x.dtype), bias)
