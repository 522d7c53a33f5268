"""How long one layer's matmul takes in each format, beside bfloat16: the formats that users get."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..layers import supported_layers
from ..methods import named_method
from ..timing import seconds_in_turn

BASELINE = "bf16"

# (N, K) of a FLUX.1 block's layers: fused qkv, attention output, MLP up and down.
TYPICAL_SHAPES = {(9216, 3072): 1, (3072, 3072): 1, (12288, 3072): 1, (3072, 12288): 1}
SMALL_SHAPES = {(n // 4, k // 4): count for (n, k), count in TYPICAL_SHAPES.items()}

_MOST_ROUNDS = 15
_SHORTEST_SAMPLE = 2e-3


@dataclass(frozen=True)
class GemmTiming:
    """The times of one matmul: M rows of input by a weight [N, K].

    rows: M. shape: (N, K). layers: how many layers have this shape. seconds: the median of one
    matmul, by BASELINE and method name.
    """

    rows: int
    shape: tuple[int, int]
    layers: int
    seconds: dict[str, float]

    def speed(self, method: str) -> float:
        """How many times as fast as bfloat16 ``method`` is."""
        return self.seconds[BASELINE] / self.seconds[method]

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        speeds = {method: self.speed(method) for method in self.seconds}
        return {**asdict(self), "shape": list(self.shape), "speed": speeds}


def typical_shapes(device: torch.device) -> dict[tuple[int, int], int]:
    """The weight shapes of a FLUX.1 block, and how many layers have each; a quarter of its width on
    a CPU."""
    return SMALL_SHAPES if device.type == "cpu" else TYPICAL_SHAPES


def typical_rows(device: torch.device) -> int:
    """The tokens of a 1024 x 1024 image; those of a 256 x 256 image on a CPU."""
    return 256 if device.type == "cpu" else 4096


def linear_shapes(model: nn.Module) -> dict[tuple[int, int], int]:
    """(N, K) of the Linear layers of ``model``, quantized or not, and how many have each shape."""
    shapes = (tuple(layer.weight.shape) for _, _, layer in supported_layers(model, "transformer"))
    return dict(Counter(shapes))


def measure_gemms(
    shapes: Mapping[tuple[int, int], int],
    methods: Sequence[str],
    device: torch.device,
    rows: int,
    seconds: float = 3.0,
    on_shape: Callable[[], None] = lambda: None,
) -> tuple[GemmTiming, ...]:
    """Time ``methods`` on ``shapes``, from the one that costs the model most.

    rows: M of the inputs. After about ``seconds`` no further shape begins; the first is always
    measured. on_shape is called before each, and may raise, to cancel. RuntimeError where the
    device cannot run one of ``methods``, or bfloat16.
    """
    timings: list[GemmTiming] = []
    ends = time.perf_counter() + seconds
    for (n, k), layers in sorted(shapes.items(), key=lambda item: -math.prod(item[0]) * item[1]):
        if timings and time.perf_counter() > ends:
            break
        on_shape()
        calls = _calls((n, k), methods, device, rows)
        measured = seconds_in_turn(
            calls, device, _MOST_ROUNDS, _SHORTEST_SAMPLE, seconds / len(shapes)
        )
        timings.append(GemmTiming(rows, (n, k), layers, measured))
    return tuple(timings)


def _calls(
    shape: tuple[int, int], methods: Sequence[str], device: torch.device, rows: int
) -> dict[str, Callable[[], torch.Tensor]]:
    weight = torch.randn(shape, dtype=torch.bfloat16, device=device)
    x = torch.randn(rows, shape[1], dtype=torch.bfloat16, device=device)
    calls = {BASELINE: lambda: F.linear(x, weight)}
    for method in methods:
        fmt = named_method(method).method.choose(shape, "per-row").format
        calls[method] = partial(fmt.linear, x, fmt.quantize(weight), None)
    return calls


def total_seconds(timings: Sequence[GemmTiming], method: str) -> float:
    """The time of one pass through all layers of the measured shapes."""
    return sum(timing.layers * timing.seconds[method] for timing in timings)


def fastest(timings: Sequence[GemmTiming], methods: Sequence[str]) -> str:
    """The method that takes the least time; the first of ``methods`` unless all were measured."""
    if not timings or any(method not in timings[0].seconds for method in methods):
        return methods[0]
    return min(methods, key=lambda method: total_seconds(timings, method))
