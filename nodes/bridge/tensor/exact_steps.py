"""Steps of the sampler in which activations are not rounded, though the method rounds them.

The same codes are multiplied weight-only then, so that it takes no memory. Most of what rounding
activations costs the final latent arises in the first and the last steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from threading import Lock

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ....quant_core.errors import ConfigError
from ....quant_core.formats import QuantizedWeight
from ....quant_core.planning.plan import Plan

KEY = "graphquant.exact_steps"
_COUNTED = re.compile(r"(first|last)\s+(\d+)")
_RANGE = re.compile(r"sigmas?\s+(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class ExactSteps:
    """The sampling steps in which activations are not rounded.

    first, last: how many steps at either end. sigmas: ranges (low, high), both included.
    """

    first: int = 0
    last: int = 0
    sigmas: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, text: str) -> ExactSteps | None:
        """What ``text`` says, such as "first 2, last 2" or "sigma 0-0.3"; None where it is empty.
        ConfigError for any other."""
        counted, ranges = {"first": 0, "last": 0}, []
        parts = [part.strip().lower() for part in re.split(r"[,\n]", text) if part.strip()]
        for part in parts:
            if match := _COUNTED.fullmatch(part):
                counted[match[1]] = int(match[2])
            elif match := _RANGE.fullmatch(part):
                ranges.append(tuple(sorted((float(match[1]), float(match[2])))))
            else:
                raise ConfigError(
                    f"exact_steps says {part!r}. Write first 2, last 2, or a range such as "
                    "sigma 0-0.3, with commas between."
                )
        return cls(**counted, sigmas=tuple(ranges)) if parts else None

    def holds(self, sigma: float, schedule: torch.Tensor | None) -> bool:
        """Whether the call at ``sigma`` is one of them. schedule: the run's sigmas, falling, with
        the last 0; None where it is not known."""
        if any(low <= sigma <= high for low, high in self.sigmas):
            return True
        if schedule is None:
            return False
        steps = len(schedule) - 1
        # A sampler of higher order calls between two sigmas too: such a call is of the earlier.
        step = int((schedule[:steps] >= sigma * (1 - 1e-4) - 1e-9).sum()) - 1
        return step < self.first or step >= steps - self.last


class _Now:
    """Whether the calls that are under way are exact. They are counted: on several GPUs a step's
    calls run in threads at once, and the first to end must not end it for the others, nor the last
    leave what the first had found."""

    exact = False
    _calls = 0
    _lock = Lock()

    @classmethod
    @contextmanager
    def call(cls) -> Iterator[None]:
        """While the context lasts, an exact call is under way."""
        cls._count(1)
        try:
            yield
        finally:
            cls._count(-1)

    @classmethod
    def _count(cls, step: int) -> None:
        with cls._lock:
            cls._calls += step
            cls.exact = cls._calls > 0


def as_computed(weight: QuantizedWeight) -> QuantizedWeight:
    """``weight`` as it is multiplied now: in an exact step by its weight-only format."""
    return replace(weight, format=weight.format.weight_only()) if _Now.exact else weight


def with_exact_steps(model: ModelPatcher, steps: ExactSteps) -> ModelPatcher:
    """A clone of ``model`` that leaves activations as they are in ``steps``."""

    def in_its_way(executor: Callable, x, t, *arguments, **named):
        options = named.get("transformer_options") or (arguments[3] if len(arguments) > 3 else {})
        exact = steps.holds(t.flatten()[0].item(), options.get("sample_sigmas"))
        with _Now.call() if exact else nullcontext():
            return executor(x, t, *arguments, **named)

    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, in_its_way)
    return clone


def exact_steps_warnings(plan: Plan) -> list[str]:
    """What to say where exact steps change nothing."""
    if any(layer.format.weight_only() != layer.format for layer in plan.quantized):
        return []
    return [f"exact_steps has no effect: {plan.runs_as} rounds no activations."]
