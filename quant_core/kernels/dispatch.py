"""Which way each kernel runs: in Triton on a GPU that has it, else in plain PyTorch.

Under torch.compile the plain twin is traced, which Inductor fuses with what comes before and after
it. Where that would not compile (FP8 weights before SM 8.9) or be slow (few rows, INT8 products)
the kernel is called, as an operator ``torch.ops.graphquant`` with shapes for tracing and without
gradients. Outside torch.compile nothing goes through an operator, which costs 10 microseconds.
"""

from __future__ import annotations

import logging
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import linear

from . import launch, launch_matmul, plain
from .blocks import is_traced
from .launch import has_triton

log = logging.getLogger(__name__)

_GROUPS = "Tensor codes, Tensor scale, Tensor zero_point, int group_size"
_SCHEMAS = {
    "dequantize_scaled": "(Tensor codes, Tensor scale, ScalarType dtype) -> Tensor",
    "scaled_linear": "(Tensor x, Tensor codes, Tensor scale, Tensor? bias) -> Tensor",
    "int4_linear": f"(Tensor x, {_GROUPS}, Tensor? bias) -> Tensor",
    "int8_product": "(Tensor x, Tensor codes, Tensor row_scale, Tensor column_scale, Tensor? bias, "
    "ScalarType dtype) -> Tensor",
}


def _shape_of_scaled(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return codes.new_empty(codes.shape, dtype=dtype)


def _shape_of_linear(x: Tensor, codes: Tensor, *_) -> Tensor:
    return x.new_empty((*x.shape[:-1], codes.shape[0]))


def _shape_of_product(x: Tensor, codes: Tensor, *others) -> Tensor:
    return x.new_empty((x.shape[0], codes.shape[0]), dtype=others[-1])


_SHAPES = {
    "dequantize_scaled": _shape_of_scaled,
    "scaled_linear": _shape_of_linear,
    "int4_linear": _shape_of_linear,
    "int8_product": _shape_of_product,
}


def _register(name: str) -> None:
    """Once a process: a second copy of this package finds the operator of the first."""
    operator = f"graphquant::{name}"
    if hasattr(torch.ops.graphquant, name):
        return
    torch.library.define(operator, _SCHEMAS[name])
    torch.library.impl(operator, "cpu", getattr(plain, name))
    room = launch if hasattr(launch, name) else launch_matmul
    torch.library.impl(operator, "cuda", getattr(room if has_triton() else plain, name))
    # As register_fake would, which searches all modules for its caller: 20 ms each at start-up.
    torch.library.impl(operator, "meta", _SHAPES[name])


for _name in _SCHEMAS:
    _register(_name)

_ops = torch.ops.graphquant


def runs_triton(tensor: Tensor) -> bool:
    """Whether the kernels on ``tensor`` are Triton's."""
    return tensor.is_cuda and not is_traced(tensor) and triton_works(tensor.device)


def with_index(device: torch.device) -> torch.device:
    """``device`` with its number; a plain ``cuda`` is the current GPU."""
    if device.type != "cuda" or device.index is not None or not torch.cuda.is_available():
        return device
    return torch.device(device.type, torch.cuda.current_device())


@lru_cache
def triton_works(device: torch.device) -> bool:
    """Whether Triton runs on ``device``, tried once. It needs a GPU that it supports and a C
    compiler."""
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
    return (launch if runs_triton(x) else plain).quantize_rows(x, dtype)


def dequantize_scaled(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """See ``plain.dequantize_scaled``."""
    if codes.is_cuda and codes.dtype != torch.int8 and is_traced(codes) and has_triton():
        return _ops.dequantize_scaled(codes, scale, dtype)
    return (launch if runs_triton(codes) else plain).dequantize_scaled(codes, scale, dtype)


def dequantize_int4(
    codes: Tensor, scale: Tensor, zero_point: Tensor, group_size: int, dtype: torch.dtype
) -> Tensor:
    """See ``plain.dequantize_int4``."""
    way = launch if runs_triton(codes) else plain
    return way.dequantize_int4(codes, scale, zero_point, group_size, dtype)


def scale_products(
    products: Tensor,
    row_scale: Tensor,
    column_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """See ``plain.scale_products``."""
    way = launch if runs_triton(products) else plain
    return way.scale_products(products, row_scale, column_scale, bias, dtype)


def has_few_rows(x: Tensor) -> bool:
    """Whether x has at most 16 rows, so that reading the weight is most of a product.

    One kernel then reads it as it is stored. CUDA's 8-bit matmuls refuse so few rows (INT8) or
    crash on them when K is large (FP8, CUDA 12.9, torchao issue 4582).
    """
    return x.numel() <= launch_matmul.FEW_ROWS * x.shape[-1]


def _for_few_rows(x: Tensor):
    """What multiplies the few rows of x; None where no kernel does."""
    if not (x.is_cuda and has_triton() and has_few_rows(x)):
        return None
    if is_traced(x):
        return _ops
    return launch_matmul if triton_works(x.device) else None


def int4_linear(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    group_size: int,
    bias: Tensor | None,
) -> Tensor:
    """As ``plain.int4_linear``, for x [..., K].

    One kernel does it all for few rows. For more, the weight is dequantized for the library's
    matmul, in which an image spends its time.
    """
    weight = (codes, scale, zero_point, group_size)
    way = _for_few_rows(x)
    if way is not None:
        y = way.int4_linear(x.reshape(-1, x.shape[-1]), *weight, bias)
        return y.view(*x.shape[:-1], len(codes))
    if not runs_triton(x):
        return plain.int4_linear(x, *weight, bias)
    return linear(x, launch.dequantize_int4(*weight, x.dtype), bias)


def scaled_linear(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """As ``plain.scaled_linear``; one kernel does it all for few rows."""
    if not codes.is_cuda:
        return plain.scaled_linear(x, codes, scale, bias)
    way = _for_few_rows(x)
    if way is None or codes.dim() != 2:
        return linear(x, dequantize_scaled(codes, scale, x.dtype), bias)
    y = way.scaled_linear(x.reshape(-1, x.shape[-1]), codes, scale, bias)
    return y.view(*x.shape[:-1], len(codes))
