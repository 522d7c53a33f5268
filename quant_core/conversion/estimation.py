"""How large a model file would be by each method: from its header, in a fraction of a second."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import NothingToQuantizeError, QuantizationError
from ..fit import Fit, Recipe
from ..methods import FIT, SIZED
from ..planning.decisions import Plan
from .convert import AUTO, plan_file
from .readers import is_private
from .source import open_model


@dataclass(frozen=True)
class Estimate:
    """One method's file. nbytes: of its tensors, 0 where it is not possible. layers: how many
    are quantized. bits: a weight of those. stock: whether ComfyUI reads the file without this
    pack. problem: why the method is not possible."""

    method: str
    nbytes: int = 0
    layers: int = 0
    bits: float = 0.0
    stock: bool = False
    problem: str = ""


def estimate_file(
    path: str | Path,
    methods: Iterable[str] | None = None,
    granularity: str = "per-row",
    *,
    preset: str | None = AUTO,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] | None = None,
    fit: Fit | Recipe | None = None,
) -> tuple[Estimate, ...]:
    """The estimates of ``methods`` (default: all whose size a name alone tells) for the model
    ``path``.

    The other arguments and errors as in ``convert``; what is wrong with one method alone, where no
    ``methods`` are named, is its ``problem``. fit: what to estimate the method "fit" for, too.
    """
    chosen = tuple(methods or SIZED)
    if fit is not None and FIT not in chosen:
        chosen = (*chosen, FIT)
    found = []
    with open_model(path) as model:
        for method in chosen:
            try:
                plan = plan_file(
                    model,
                    method,
                    granularity,
                    preset=preset,
                    include=include,
                    exclude=exclude,
                    fit=fit,
                )
            except NothingToQuantizeError:
                raise
            except QuantizationError as error:
                if methods is not None:
                    raise
                found.append(Estimate(method, problem=str(error)))
                continue
            found.append(estimate_of(method, plan, model.files.nbytes))
    return tuple(found)


def estimate_of(method: str, plan: Plan, nbytes: int) -> Estimate:
    """What ``plan`` makes of a model, or of a file, of ``nbytes``."""
    saved = sum(layer.bytes_before - layer.bytes_after for layer in plan.quantized)
    weights = sum(math.prod(layer.shape) for layer in plan.quantized)
    stored = sum(layer.bytes_after for layer in plan.quantized)
    return Estimate(
        method,
        nbytes - saved,
        len(plan.quantized),
        8 * stored / weights if weights else 0.0,
        bool(plan.quantized) and not is_private(plan, AUTO),
    )
