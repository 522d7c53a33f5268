"""Times calls on a device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping
from statistics import median
from typing import TypeVar

import torch

_FEWEST_ROUNDS = 3

Name = TypeVar("Name", bound=Hashable)


def wait_for(device: torch.device) -> None:
    """Waits until all work on ``device`` is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def seconds_in_turn(
    calls: Mapping[Name, Callable[[], object]],
    device: torch.device,
    rounds: int,
    shortest: float = 0.0,
    budget: float = math.inf,
) -> dict[Name, float]:
    """The median seconds of one call of each of ``calls``, after a warm-up.

    In every round each call has its turn, so that a slow moment falls on all alike. A sample
    repeats its call as often as the first call needs to fill ``shortest`` seconds. After ``budget``
    seconds no further round begins, but three are always made.
    """
    for call in calls.values():
        _sample(call, 1, device)  # the first call compiles, or chooses kernels
    first = next(iter(calls.values()))
    repeats = max(1, math.ceil(shortest / _sample(first, 1, device))) if shortest else 1
    samples: dict[Name, list[float]] = {name: [] for name in calls}
    ends = time.perf_counter() + budget
    for done in range(rounds):
        if done >= _FEWEST_ROUNDS and time.perf_counter() > ends:
            break
        for name, call in calls.items():
            samples[name].append(_sample(call, repeats, device))
    return {name: median(times) for name, times in samples.items()}


def _sample(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Seconds of one call, averaged over ``repeats``."""
    wait_for(device)
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    wait_for(device)
    return (time.perf_counter() - started) / repeats
