"""Which way each kernel runs: in Triton on a GPU that has it, else in plain PyTorch.

Under torch.compile the plain twin is traced, which Inductor fuses with what comes before and after
it. Where that would not compile (FP8 weights before SM 8.9) or be slow (few rows, INT8 products)
the kernel is called, as an operator ``torch.ops.graphquant`` with shapes for tracing and without
gradients. Outside torch.compile nothing goes through an operator, which costs 10 microseconds.

Tested by tests/quant_core/kernels/test_without_a_gpu.py.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from . import plain
from .blocks import is_traced
from .coding import StoredParts, coding_of
from .device import found, multiplies_in_triton, with_index
from .triton import launch_decode, launch_rows
from .triton.start import has_triton

log = logging.getLogger(__name__)

_WEIGHT = (
    "Tensor codes, Tensor scale, Tensor? zero_point, Tensor? scale_2, SymInt[] shape, str coding"
)
SCHEMAS = {
    "dequantize": f"({_WEIGHT}, ScalarType dtype) -> Tensor",
    "stored_linear": f"(Tensor x, {_WEIGHT}, Tensor? bias) -> Tensor",
    "product": "(Tensor x, Tensor codes, Tensor row_scale, Tensor column_scale, Tensor? bias, "
    "ScalarType dtype) -> Tensor",
}


def _dequantize(codes, scale, zero_point, scale_2, shape, coding, dtype) -> Tensor:
    weight = StoredParts(codes, scale, zero_point, scale_2, tuple(shape))
    return launch_decode.dequantize(weight, coding_of(coding), dtype).view(*shape)


def _stored_linear(x, codes, scale, zero_point, scale_2, shape, coding, bias) -> Tensor:
    weight = StoredParts(codes, scale, zero_point, scale_2, tuple(shape))
    return launch_decode.stored_linear(x, weight, coding_of(coding), bias)


def _product(*arguments) -> Tensor:
    from .product import product  # which asks this module for its parts

    return product(*arguments)


def _shape_of_weight(codes, scale, zero_point, scale_2, shape, coding, dtype) -> Tensor:
    return codes.new_empty(shape, dtype=dtype)


def _shape_of_linear(x, codes, scale, zero_point, scale_2, shape, coding, bias) -> Tensor:
    return x.new_empty((x.shape[0], shape[0]))


def _shape_of_product(x: Tensor, codes: Tensor, *others) -> Tensor:
    return x.new_empty((x.shape[0], codes.shape[0]), dtype=others[-1])


_ON_CUDA = {"dequantize": _dequantize, "stored_linear": _stored_linear, "product": _product}
_SHAPES = {
    "dequantize": _shape_of_weight,
    "stored_linear": _shape_of_linear,
    "product": _shape_of_product,
}


def _register(name: str) -> None:
    """Once a process: a second copy of this package finds the operator of the first."""
    operator = f"graphquant::{name}"
    if hasattr(torch.ops.graphquant, name):
        return
    torch.library.define(operator, SCHEMAS[name])
    torch.library.impl(operator, "cuda", _ON_CUDA[name])
    if name == "product":
        torch.library.impl(operator, "cpu", plain.product)
    # As register_fake would, which searches all modules for its caller: 20 ms each at start-up.
    torch.library.impl(operator, "meta", _SHAPES[name])


for _name in SCHEMAS:
    _register(_name)


def runs_triton(tensor: Tensor) -> bool:
    """Whether a kernel on ``tensor`` is one of Triton's."""
    return tensor.is_cuda and not is_traced(tensor) and triton_works(tensor.device)


def triton_works(device: torch.device) -> bool:
    """Whether Triton runs on ``device``, tried once: it needs a GPU that it supports and, for its
    first kernel, a C compiler."""
    return has_triton() and bool(found(TRITON_WORKS, device, _try_triton))


def triton_multiplies(device: torch.device) -> bool:
    """Whether Triton's matmuls run on ``device``."""
    return triton_works(device) and multiplies_in_triton(with_index(device))


# What was found, by device.
TRITON_WORKS: dict[torch.device, bool] = {}


def _try_triton(device: torch.device) -> bool:
    try:
        codes, _ = launch_rows.quantize_rows(torch.ones(1, 128, device=device), torch.int8)
    except torch.OutOfMemoryError:
        raise
    except Exception as problem:  # a compiler says no by any type
        reason = str(problem).strip().partition("\n")[0]
        log.warning("Triton does not run on %s, plain PyTorch does, slower: %s", device, reason)
        return False
    return bool((codes == 127).all())


def quantize_rows(x: Tensor, dtype: torch.dtype, first: str = "") -> tuple[Tensor, Tensor]:
    """See ``plain.quantize_rows``."""
    return (launch_rows if runs_triton(x) else plain).quantize_rows(x, dtype, first)


def quantize_rows_low(x: Tensor, dtype: torch.dtype, down: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See ``plain.quantize_rows_low``."""
    return (launch_rows if runs_triton(x) else plain).quantize_rows_low(x, dtype, down)


def quantize_by(x: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """See ``plain.quantize_by``."""
    return (launch_rows if runs_triton(x) else plain).quantize_by(x, scale, dtype)


def scale_products(
    products: Tensor,
    row_scale: Tensor,
    column_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    out: Tensor | None = None,
) -> Tensor:
    """See ``plain.scale_products``."""
    way = launch_rows if runs_triton(products) else plain
    return way.scale_products(products, row_scale, column_scale, bias, dtype, out)


FEW_ROWS = 16


def has_few_rows(x: Tensor) -> bool:
    """Whether x has at most FEW_ROWS rows, so that reading the weight is nearly all of the work and
    one kernel reads it as it is stored. CUDA's 8-bit matmuls refuse so few rows (INT8) or crash on
    them when K is large (FP8, CUDA 12.9, torchao issue 4582)."""
    return x.numel() <= FEW_ROWS * x.shape[-1]
