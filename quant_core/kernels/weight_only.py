"""Linear layers whose weight is decoded and multiplied in the dtype of their input.

For few rows of x, one kernel reads the weight as it is stored. For more rows the weight is decoded,
with a LoRA added on the way, and the library's matmul multiplies, which takes most of an image's
time. Some rows of the weight are decoded at a time where that keeps them in the GPU's cache.

Tested by tests/quant_core/kernels/test_hazards.py.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import is_traced
from .coding import Coding
from .device import DOTS
from .dispatch import FEW_ROWS, triton_multiplies, triton_works
from .race import question, winner
from .triton import launch_decode
from .triton.start import has_triton

# Stored bytes of a weight.
_SMALL = 4096
# Up to here one kernel may be quicker than decoding first: they are raced.
_RACED_ROWS = 320
# Bytes of the decoded rows that wait for the matmul at a time: no fewer, for a matmul's sake.
_LEAST_CHUNK, _MOST_CHUNK = 20 * 2**20, 28 * 2**20


def stored_linear(
    x: Tensor,
    weight,
    bias: Tensor | None,
    up: Tensor | None = None,
    down: Tensor | None = None,
) -> Tensor:
    """``x @ (W + up @ down).T + bias`` in the dtype of x [..., K].

    weight: a ``QuantizedWeight`` of a matrix [N, K]. up [N, R], down [R, K]: a LoRA, in the dtype
    of x.
    """
    coding = weight.format.coding
    traced = is_traced(x)
    if not x.is_cuda or coding is None or len(weight.shape) != 2 or not _has_kernels(x, traced):
        return add_low_rank(_plain(x, weight, bias), x, up, down)
    rows = x.reshape(-1, x.shape[-1])
    if not x.numel():
        y = rows.new_empty(len(rows), weight.shape[0])
    elif traced:
        y = _traced(rows, weight, coding, bias)
    elif up is None or len(rows) <= FEW_ROWS:
        y = _eager(rows, weight, coding, bias)
    else:
        y = _with_low_rank(rows, weight, coding, bias, up, down)
        up = None
    y = y.view(*x.shape[:-1], weight.shape[0])
    return add_low_rank(y, x, up, down)


def _plain(x: Tensor, weight, bias: Tensor | None) -> Tensor:
    """In the dtype of x; but a CPU takes 20 microseconds for the least product of bfloat16, 5 for
    one of float32."""
    codes = weight.qdata
    small = codes.numel() <= _SMALL and codes.device.type == "cpu" and not is_traced(x)
    if not small or x.dtype == torch.float32:
        return F.linear(x, weight.format.dequantize(weight, x.dtype), bias)
    bias = None if bias is None else bias.float()
    return F.linear(x.float(), weight.format.dequantize(weight, torch.float32), bias).to(x.dtype)


def add_low_rank(y: Tensor, x: Tensor, up: Tensor | None, down: Tensor | None) -> Tensor:
    """y plus ``x @ down.T @ up.T``, written into y: a thin product costs little but its passes over
    y, and a new tensor would double them."""
    if up is None:
        return y
    rows = y.reshape(-1, y.shape[-1])
    rows.addmm_(F.linear(x, down).reshape(-1, len(down)), up.t())
    return rows.view(y.shape)


def decoded(weight, dtype: torch.dtype) -> Tensor:
    """The weight as a plain tensor of its shape."""
    coding, codes = weight.format.coding, weight.qdata
    if not codes.is_cuda or coding is None or not has_triton():
        return weight.format.dequantize(weight, dtype)
    if is_traced(codes):
        if coding.values not in ("e4m3", "e5m2"):
            return weight.format.dequantize(weight, dtype)
        return torch.ops.graphquant.dequantize(*_arguments(weight, coding), dtype)
    if not triton_works(codes.device):
        return weight.format.dequantize(weight, dtype)
    return launch_decode.dequantize(weight, coding, dtype).view(weight.shape)


def decoded_codes(weight, coding: Coding) -> Tensor | None:
    """The INT8 codes that a weight of whole ``coding`` decodes to; None where no kernel does that
    here."""
    codes = weight.qdata
    if not codes.is_cuda or is_traced(codes) or not triton_works(codes.device):
        return None
    return launch_decode.dequantize(weight, coding, torch.int8)


def _has_kernels(x: Tensor, traced: bool) -> bool:
    return has_triton() and (traced or triton_works(x.device))


def _arguments(weight, coding: Coding) -> tuple:
    parts = (weight.qdata, weight.scale, weight.zero_point, weight.scale_2)
    return (*parts, weight.shape, coding.to_text())


def _traced(rows: Tensor, weight, coding: Coding, bias: Tensor | None) -> Tensor:
    if rows.shape[0] <= FEW_ROWS and DOTS.get(rows.device, True):
        return torch.ops.graphquant.stored_linear(rows, *_arguments(weight, coding), bias)
    return F.linear(rows, decoded(weight, rows.dtype), bias)


def _eager(rows: Tensor, weight, coding: Coding, bias: Tensor | None) -> Tensor:
    m, (n, k) = len(rows), weight.shape
    if m > _RACED_ROWS or not triton_multiplies(rows.device):
        return _decoded_linear(rows, weight, coding, bias)
    at_once = partial(launch_decode.stored_linear, rows, weight, coding, bias)
    if m <= FEW_ROWS:
        return at_once()
    ways = {
        "decoded": partial(_decoded_linear, rows, weight, coding, bias),
        "at once": at_once,
    }
    asked = question(f"weight-only {coding.bits} {coding.values}", m, n, k)
    return ways[winner(asked, rows.device, ways)]()


def _with_low_rank(
    rows: Tensor, weight, coding: Coding, bias: Tensor | None, up: Tensor, down: Tensor
) -> Tensor:
    if up.shape[1] <= launch_decode.MOST_RANKS and triton_multiplies(rows.device):
        return _decoded_linear(rows, weight, coding, bias, up, down)
    return add_low_rank(_decoded_linear(rows, weight, coding, bias), rows, up, down)


def _decoded_linear(
    rows: Tensor,
    weight,
    coding: Coding,
    bias: Tensor | None,
    up: Tensor | None = None,
    down: Tensor | None = None,
) -> Tensor:
    n, k = weight.shape
    decode = partial(launch_decode.dequantize, weight, coding, rows.dtype, up, down)
    step = chunk_rows(len(rows), n, k, rows.element_size(), bias is not None, _cache(rows.device))
    if step >= n:
        return F.linear(rows, decode(), bias)
    y = rows.new_empty(len(rows), n)
    scratch = rows.new_empty(step, k)
    for first in range(0, n, step):
        some = slice(first, min(first + step, n))
        chunk = decode(rows=some, out=scratch[: some.stop - first])
        if bias is None:
            torch.mm(rows, chunk.t(), out=y[:, some])
        else:
            torch.addmm(bias[some], rows, chunk.t(), out=y[:, some])
    return y


def chunk_rows(m: int, n: int, k: int, itemsize: int, has_bias: bool, cache: int) -> int:
    """How many of a weight's N rows are decoded at a time: all, unless keeping the decoded rows in
    a ``cache`` of that many bytes saves more traffic than chunks add.

    Each chunk reads x again, and a bias, which the library can no longer add on the way, is written
    first and read again.
    """
    whole = n * k * itemsize
    chunk = min(_MOST_CHUNK, cache // 2)
    if chunk < _LEAST_CHUNK or whole <= chunk:
        return n
    count = math.ceil(whole / chunk)
    costs = (count - 1) * m * k * itemsize + (2 * m * n * itemsize if has_bias else 0)
    return math.ceil(n / count) if costs < 2 * whole else n


@lru_cache
def _cache(device: torch.device) -> int:
    """Bytes of the GPU's second-level cache."""
    return torch.cuda.get_device_properties(device).L2_cache_size
