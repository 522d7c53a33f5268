"""The method "fastest": time what could compute a layer, and take the quickest that is near enough.

Every candidate multiplies a layer of the model's own shape by as many rows as the model gives it,
beside the unquantized layer, in turns, on the device. The weights are random: neither the time nor
the relative error of Gaussian weights depends on the model, and a plan reads no weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial

import torch
import torch.nn.functional as F

from ..formats import Format
from ..hardware import Hardware, default_device, hardware_of
from ..methods.method import METHODS, Choice
from ..timing import seconds_in_turn

CANDIDATES = ("fp8-dynamic", "int8-dynamic", "fp8-weight-only", "int8", "int4")
DEFAULT_ROWS = 4096
DEFAULT_MAX_ERROR = 0.05

_ROUNDS = 5
_ERROR_ROWS = 256


@dataclass(frozen=True)
class Search:
    """What the method "fastest" times, and what error it allows.

    max_error: the largest relative L2 of a layer's output. rows: activation rows in one call, by
    weight shape; DEFAULT_ROWS for other shapes. device: None for the accelerator, else the CPU.
    dtype: what the model computes in.
    """

    max_error: float = DEFAULT_MAX_ERROR
    rows: Mapping[tuple[int, ...], int] = field(default_factory=dict)
    device: torch.device | None = None
    dtype: torch.dtype = torch.bfloat16


@dataclass(frozen=True)
class Timing:
    """The time and the error of one layer in one format.

    format: None for the unquantized layer. seconds: the median of one call. error: relative L2 of
    the output.
    """

    method: str
    format: Format | None
    seconds: float
    error: float

    def __str__(self) -> str:
        return f"{self.method} {self.seconds * 1e3:.2f} ms (error {self.error:.3f})"


def fastest_choice(shape: tuple[int, ...], granularity: str, search: Search) -> Choice:
    """The quickest format within the allowed error for a weight of ``shape``; None where the
    unquantized layer is as quick.

    The note lists all timings.
    """
    if len(shape) != 2:
        return Choice(None, "fastest times Linear layers only")
    rows = search.rows.get(shape, DEFAULT_ROWS)
    timings = measure(shape, rows, granularity, search.device or default_device(), search.dtype)
    allowed = [timing for timing in timings if timing.error <= search.max_error]
    best = min(allowed, key=lambda timing: timing.seconds)
    table = ", ".join(str(timing) for timing in sorted(timings, key=lambda t: t.seconds))
    beyond = len(timings) - len(allowed)
    bound = f"; {beyond} beyond the error of {search.max_error:g}" if beyond else ""
    return Choice(best.format, f"{best.method} is fastest at {rows} rows: {table}{bound}")


@lru_cache(maxsize=512)
def measure(
    shape: tuple[int, int],
    rows: int,
    granularity: str,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Timing, ...]:
    """The time and error of the unquantized layer and of every candidate that ``device`` runs,
    measured once for each set of arguments."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator).to(device, dtype)
    x = torch.randn(rows, shape[1], generator=generator).to(device, dtype)
    exact = F.linear(x[:_ERROR_ROWS].float(), weight.float())
    plain = str(dtype).removeprefix("torch.")
    formats: dict[str, Format | None] = {plain: None}
    calls: dict[str, Callable[[], torch.Tensor]] = {plain: lambda: F.linear(x, weight)}
    for name, fmt in _candidates(shape, granularity, hardware_of(device)):
        formats[name] = fmt
        calls[name] = partial(fmt.linear, x, fmt.quantize(weight), None)
    errors = {name: _relative_l2(call()[:_ERROR_ROWS], exact) for name, call in calls.items()}
    seconds = seconds_in_turn(calls, device, _ROUNDS)
    return tuple(Timing(name, formats[name], seconds[name], errors[name]) for name in calls)


def _candidates(
    shape: tuple[int, int], granularity: str, hardware: Hardware
) -> list[tuple[str, Format]]:
    runnable = [
        METHODS[name]
        for name in CANDIDATES
        if hardware.fp8_matmul or not METHODS[name].needs_fp8_matmul
    ]
    chosen = [(method.name, method.choose(shape, granularity).format) for method in runnable]
    return [(name, fmt) for name, fmt in chosen if fmt is not None]


def _relative_l2(result: torch.Tensor, exact: torch.Tensor) -> float:
    return ((result.float() - exact).norm() / exact.norm()).item()
