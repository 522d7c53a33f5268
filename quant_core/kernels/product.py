"""The scaled product of 8-bit codes (INT8 or FP8), by the library or by one kernel of ours.

The library writes the bare products, of INT8 in 32 bits each, and a second kernel reads them again:
for a FLUX layer that is as many bytes as all else together. Our kernel scales before it writes,
and adds a LoRA and the bias, but its matmul may be slower. Which is quicker is timed once for each
size on each GPU.

Tested by tests/quant_core/kernels/test_hazards.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from . import plain
from .blocks import is_traced
from .device import DOTS, found, reads_float8
from .dispatch import scale_products, triton_multiplies
from .float8_way import float8_way, float8_way_of, scaled_mm, writes_directly
from .race import known_winner, question, winner
from .triton import launch_products
from .triton.start import has_triton

log = logging.getLogger(__name__)

LIBRARY = "library"
# What ``torch._int_mm`` is tried on: rows, and K and N.
_TRIED_ROWS, _TRIED = 32, 128
# By device, whether it runs.
INT8_WORKS: dict[torch.device, bool] = {}


@dataclass(frozen=True)
class Operands:
    """What a product multiplies.

    x: codes [M, K], int8 or FP8. codes: [N, K] of the same kind. row_scale: float32 [M, 1].
    column_scale: float32 [1, N] or [1, 1]. bias: [N] or None. dtype: of the result."""

    x: Tensor
    codes: Tensor
    row_scale: Tensor
    column_scale: Tensor
    bias: Tensor | None
    dtype: torch.dtype

    @property
    def kind(self) -> str:
        """Either "int8" or "fp8": what is multiplied."""
        return "int8" if self.codes.dtype == torch.int8 else "fp8"


def product(
    x: Tensor,
    codes: Tensor,
    row_scale: Tensor,
    column_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    low: Tensor | None = None,
    up: Tensor | None = None,
) -> Tensor:
    """``plain.product`` of the same: x by codes, times both scales, plus bias; and where they are
    given plus low [M, R] @ up [N, R].T. Operands as in ``Operands``."""
    operands = Operands(x, codes, row_scale, column_scale, bias, dtype)
    if not x.is_cuda:
        return _with_low(by_library(operands), low, up)
    if is_traced(x):
        return _with_low(_traced(operands), low, up)
    ways = _ways(operands, low, up)
    what = f"{operands.kind} {str(dtype).removeprefix('torch.')}"
    asked = question(what if up is None else f"{what} with a LoRA", len(x), *codes.shape)
    best = known_winner(asked, x.device)
    return ways[best if best in ways else winner(asked, x.device, ways)]()


def adds_low(up: Tensor) -> bool:
    """Whether the one kernel has room for the second product of a LoRA of this rank."""
    return up.shape[1] <= launch_products.MOST_RANKS


def _with_low(y: Tensor, low: Tensor | None, up: Tensor | None) -> Tensor:
    return y if up is None else y.addmm_(low, up.t())


def _traced(operands: Operands) -> Tensor:
    """Under torch.compile nothing is tried. An operator races when it runs; FP8 that takes a scale
    a row stays visible."""
    x = operands.x
    row_wise = operands.kind == "fp8" and float8_way_of(x) == "row-wise"
    if row_wise or not has_triton() or not DOTS.get(x.device, True):
        return by_library(operands)
    return torch.ops.graphquant.product(
        x,
        operands.codes,
        operands.row_scale,
        operands.column_scale,
        operands.bias,
        operands.dtype,
    )


def _ways(
    operands: Operands, low: Tensor | None, up: Tensor | None
) -> dict[str, Callable[[], Tensor]]:
    """The ways to compute it, by name. Each adds the LoRA: in the kernel if it fits, else after."""

    def library() -> Tensor:
        return _with_low(by_library(operands), low, up)

    x, ways = operands.x, {}
    if _library_runs(operands):
        ways[LIBRARY] = library
    if triton_multiplies(x.device) and (operands.kind == "int8" or reads_float8(x.device)):
        inside = (low, up) if up is not None and adds_low(up) else (None, None)
        after = (None, None) if inside[1] is not None else (low, up)
        for tile in launch_products.tiles_for(len(x)):
            ways[str(tile)] = partial(_by_kernel, operands, tile, inside, after)
    return ways or {LIBRARY: library}


def _by_kernel(operands: Operands, tile: launch_products.Tile, inside: tuple, after: tuple):
    o = operands
    arguments = (o.x, o.codes, o.row_scale, o.column_scale, o.bias, o.dtype)
    return _with_low(launch_products.product(*arguments, *inside, tile=tile), *after)


def _library_runs(operands: Operands) -> bool:
    if operands.kind == "fp8":
        return float8_way(operands.x.device) is not None
    return len(operands.x) > 16 and bool(found(INT8_WORKS, operands.x.device, _try_library))


def unscaled_kinds(device: torch.device) -> tuple[str, ...]:
    """Of "fp8" and "int8" those whose bare products are written to memory and read again on
    ``device``, since neither the library nor a kernel of Triton's scales them at once: they move
    more than 1.5 times bfloat16's bytes (``test_traffic.py``)."""
    if device.type != "cuda":
        return ()
    kinds, kernels = [], triton_multiplies(device)
    if float8_way(device) == "tensor-wise" and not (kernels and reads_float8(device)):
        kinds.append("fp8")
    if multiplies_int8(device) and not kernels:
        kinds.append("int8")
    return tuple(kinds)


def multiplies_int8(device: torch.device) -> bool:
    """Whether ``device`` multiplies INT8 by INT8: a small ``torch._int_mm`` is run and compared,
    once a device; where that does not run, a kernel of Triton's may."""
    if device.type != "cuda":
        return device.type == "cpu"
    return bool(found(INT8_WORKS, device, _try_library)) or triton_multiplies(device)


def int8_kernel(device: torch.device) -> str | None:
    """What multiplies INT8 by INT8 on ``device``, in words; None where nothing does."""
    if not multiplies_int8(device):
        return None
    raced = device.type == "cuda" and triton_multiplies(device)
    return "int8 x int8 matmul (" + ("Triton or " if raced else "") + "torch._int_mm)"


def known_to_multiply_int8(device: torch.device) -> bool:
    """What ``multiplies_int8`` found before; nothing is tried, as under torch.compile."""
    return INT8_WORKS.get(device, False) or (has_triton() and DOTS.get(device, False))


def _try_library(device: torch.device) -> bool:
    x = torch.arange(_TRIED_ROWS * _TRIED, device=device).view(-1, _TRIED) % 251 - 125
    codes = torch.arange(_TRIED * _TRIED, device=device).view(-1, _TRIED) % 241 - 120
    try:
        products = torch._int_mm(x.char(), codes.char().t())
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as problem:  # how PyTorch says that the device or its library cannot
        log.info("torch._int_mm does not run on %s: %s", device, str(problem).partition("\n")[0])
        return False
    return bool((products == (x.float() @ codes.float().t()).int()).all())


def by_library(operands: Operands) -> Tensor:
    """The library's matmul, and what scales its result where it does not."""
    o = operands
    arguments = (o.row_scale, o.column_scale, o.bias, o.dtype)
    if o.kind == "int8":
        return plain.product(o.x, o.codes, *arguments, scale=scale_products)
    if float8_way_of(o.x) == "tensor-wise":
        one = o.column_scale.new_ones(())
        # The largest product, 448 ** 2 K, is far within bfloat16's range.
        narrow = torch.bfloat16 if o.dtype == torch.bfloat16 else torch.float32
        products = scaled_mm(o.x, o.codes, one, one, None, narrow)
        return scale_products(*(products, *arguments), products if narrow == o.dtype else None)
    column_scale = o.column_scale.expand(1, len(o.codes)).contiguous()
    return float8_product(o.x, o.codes, o.row_scale, column_scale, o.bias, o.dtype)


def float8_product(
    x: Tensor,
    codes: Tensor,
    scale_x: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """``torch._scaled_mm`` with scales that it takes, in ``dtype``. It adds a bias of the dtype
    that it writes."""
    written = dtype if writes_directly(x.device, dtype, is_traced(x)) else torch.bfloat16
    inside = bias.to(written) if bias is not None and dtype == written else None
    y = scaled_mm(x, codes, scale_x, scale, inside, written).to(dtype)
    if inside is None and bias is not None:
        y += bias
    return y
