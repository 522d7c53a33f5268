"""What comfy-kitchen's products of four bits by four ask of a GPU, counted without values.

Their kernels are compiled CUDA, which no fake GPU runs, so what they read, write and multiply is
written down here: the activations are read once and stored in codes, with the branch's first factor
on the way; the product adds the branch before the result is written. INT4 has a scale for each 64
along K, which the CUDA cores multiply in float32, a conversion and two multiplications for each
group of each output: counted after the product, because nothing says how much of it overlaps.
"""

from __future__ import annotations

import torch

from lab.fake_gpu import Session

# A conversion, a product of two scales, and a multiplication with addition: FLOPs for each group.
_SCALING = 6
_FEW_ROWS = 16


def runs_in_four_bits(session: Session, fmt) -> bool:
    """Whether the GPU multiplies what ``fmt`` stores by activations of four bits."""
    return fmt.activations is not None and fmt.activations == session.gpu.four_bits


def four_bit_linear(
    session: Session,
    weight,
    bias: torch.Tensor | None,
    x: torch.Tensor,
) -> torch.Tensor:
    """The layer's output for x [..., K], and its work in the session's trace."""
    fmt, rows = weight.format, x.reshape(-1, x.shape[-1])
    if len(rows) <= _FEW_ROWS:
        return fmt.linear(x, weight, bias)
    multiply = {"int4": _int4, "nvfp4": _nvfp4}[fmt.residual]
    y = multiply(session, rows, weight, bias)
    return y.reshape(*x.shape[:-1], weight.shape[0])


def _int4(session: Session, rows: torch.Tensor, weight, bias) -> torch.Tensor:
    (m, k), n, rank = rows.shape, weight.shape[0], weight.proj_up.shape[1]
    groups, trace = k // 64, session.trace
    down = weight.proj_down
    if weight.format.rotation > 1:
        rows, down = weight.format.smoothed(rows, weight)
    codes = session.empty(m, k // 2, dtype=torch.uint8)
    steps, thin = session.empty(groups, m), session.empty(m, rank)
    trace.kernel("quantize", [rows, down], [codes, steps, thin], 2 * m * k * rank)
    y = session.empty(m, n)
    operands = [codes, steps, weight.qdata, weight.scale, thin, weight.proj_up]
    operands += [] if bias is None else [bias]
    trace.kernel("scaled_mm", operands, [y], 2 * m * n * k, "int4")
    trace.kernel("scaled_mm scales", [], [], _SCALING * m * n * groups, "fp32")
    trace.kernel("scaled_mm branch", [], [], 2 * m * n * rank)
    return y


def _nvfp4(session: Session, rows: torch.Tensor, weight, bias) -> torch.Tensor:
    from graphquant.quant_core.kernels import add_low_rank

    (m, k), n, trace = rows.shape, weight.shape[0], session.trace
    given = rows / weight.smooth_factor.to(rows.dtype)
    largest = given.abs().amax().float()
    codes = session.empty(m, k // 2, dtype=torch.uint8)
    steps = session.empty(m, k // 16, dtype=torch.float8_e4m3fn)
    trace.kernel("quantize", [given, largest], [codes, steps])
    y = session.empty(m, n)
    operands = [codes, steps, weight.qdata, weight.scale]
    operands += [] if bias is None else [bias]
    trace.kernel("scaled_mm", operands, [y], 2 * m * n * k, "fp4")
    return add_low_rank(y, rows, weight.proj_up, weight.proj_down.t())
