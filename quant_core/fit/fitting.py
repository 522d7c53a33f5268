"""Gives each layer of a plan a format, so that the model fits a size with the least error."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..errors import FitError
from ..formats import Format
from ..layers import TABLE
from ..methods import FIT, choose_for_table, named_method
from ..planning.decisions import QUANTIZE, LayerPlan, Plan
from .candidates import format_error, formats_of, widths_for
from .knapsack import Option, choose, curve, smallest_size
from .prior import assumed_per_error
from .recipe import Recipe, with_format
from .sensitivity import Sensitivity, is_amount

GIB = 1024**3
UNIFORM = ("int3", "int4", "int4-g64", "int5", "int6", "fp8-weight-only", "int8")
"""The methods that a chart shows beside the chosen point."""
_POINTS = 24
_KEPT = "fit leaves it as it is: it fits, and any format would add error"


@dataclass(frozen=True)
class Fit:
    """What the method "fit" is asked for.

    size: bytes that the whole model may take. sensitivity: measured effects, or None. stock_only:
    only formats that ComfyUI loads without this pack. gains: by layer, the share of its error that
    compensated rounding will leave, where that is known.
    """

    size: int
    sensitivity: Sensitivity | None = None
    stock_only: bool = False
    gains: Mapping[str, float] | None = None

    def __post_init__(self):
        """FitError for an argument of another type, and for a size that is not a number."""
        object.__setattr__(self, "size", int(require_size("size", self.size)))
        if self.sensitivity is not None and not isinstance(self.sensitivity, Sensitivity):
            raise FitError(
                f"sensitivity is {self.sensitivity!r:.60}. Give a Sensitivity, such as "
                "Sensitivity.load(path)."
            )
        if self.gains is None:
            return
        if not isinstance(self.gains, Mapping):
            raise FitError(f"gains is {self.gains!r:.60}. Give a number for each layer's name.")
        for name, gain in self.gains.items():
            if not is_amount(gain):
                raise FitError(f"The gain of {name} is {gain!r:.60}. Give a number of 0 or more.")


def require_size(argument: str, size: float) -> float:
    """``size``, where it is a finite number of 0 or more. FitError names the ``argument``."""
    if not is_amount(size):
        raise FitError(f"{argument} is {size!r:.60}. Give a number above 0.")
    return size


@dataclass(frozen=True)
class Point:
    """A size in bytes, and the relative L2 of the final latent that is predicted for it."""

    nbytes: int
    error: float


@dataclass(frozen=True)
class FitOutcome:
    """The chosen formats, and what other sizes would give.

    chosen: of this plan. less, more: for 10 % less and more room; None where nothing fits. curve:
    from the smallest size to the unquantized one. uniform: by method, every layer alike. measured:
    the errors come from measurements; else they are in units of the assumption and only compare.
    """

    chosen: Point
    less: Point | None
    more: Point
    curve: tuple[Point, ...]
    uniform: Mapping[str, Point]
    measured: bool
    size: int


class Fitted(NamedTuple):
    """A plan, and how it was found; no outcome where its method is not "fit"."""

    plan: Plan
    outcome: FitOutcome | None = None


@dataclass(frozen=True)
class _Layer:
    """What one layer may become, and the layers that share its weight."""

    name: str
    formats: tuple[Format | None, ...]
    options: tuple[Option, ...]


def with_fit(plan: Plan, fit: Fit | Recipe | None, model_bytes: int) -> Fitted:
    """``plan`` with the formats that fit, where its method is "fit".

    fit: a size, or a recipe that says the formats. model_bytes: of the whole model before, of which
    the plan's layers are a part. FitError: neither was given or it is something else, the smallest
    possible size is larger, or the recipe is of another model.
    """
    if fit is not None and not isinstance(fit, Fit | Recipe):
        raise FitError(f"fit is {fit!r:.60}. Give Fit(size=...), in bytes, or a Recipe.")
    if plan.method != FIT or not plan.quantized:
        return Fitted(plan)
    if isinstance(fit, Recipe):
        return Fitted(fit.apply(plan))
    if fit is None:
        raise FitError("fit needs a size. Set size_gib (from Python: fit=Fit(size=...)).")
    layers = _layers(plan, fit)
    rest = model_bytes - sum(layer.bytes_before for layer in plan.quantized)
    options = [layer.options for layer in layers]
    smallest = rest + smallest_size(options)
    if smallest > fit.size:
        raise FitError(
            f"Nothing fits in {gib(fit.size)}: the smallest possible size is {gib(smallest)}, of "
            f"which {gib(rest)} are not quantized. Allow at least that."
        )
    chosen = choose(options, fit.size - rest)
    outcome = _outcome(plan, fit, layers, chosen, rest)
    formats = {layer.name: layer.formats[at] for layer, at in zip(layers, chosen, strict=True)}
    fitted = tuple(
        with_format(layer, formats[layer.tied_to or layer.name], _KEPT)
        if layer.action == QUANTIZE
        else layer
        for layer in plan.layers
    )
    fitted_plan = replace(plan, layers=fitted)
    notes = (*plan.notes, *outcome_notes(outcome, fitted_plan, fit))
    return Fitted(replace(fitted_plan, notes=notes), outcome)


def gib(size: float) -> str:
    """Bytes in words, as exact as they are read: GiB, below 0.1 of these MiB."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 1024**2:.2f} MiB"


def _layers(plan: Plan, fit: Fit) -> list[_Layer]:
    own = [layer for layer in plan.quantized if layer.tied_to is None]
    if fit.sensitivity is None:
        per_error = assumed_per_error(own, plan.preset)
    else:
        per_error = fit.sensitivity.per_error(layer.name for layer in own)
    gains = fit.gains or {}
    usual = sorted(gains.values())[len(gains) // 2] if gains else 1.0
    return [
        _options(layer, per_error[layer.name] * gains.get(layer.name, usual), fit.stock_only)
        for layer in own
    ]


def _options(layer: LayerPlan, per_error: float, stock_only: bool) -> _Layer:
    formats: list[Format | None] = [None]
    options = [Option(layer.bytes_before, 0.0)]
    others = [fmt for _, fmt in formats_of(layer.shape, widths_for(stock_only))]
    for fmt in [choose_for_table().format] if layer.kind == TABLE else others:
        formats.append(fmt)
        options.append(Option(fmt.nbytes(layer.shape), (per_error * format_error(fmt)) ** 2))
    return _Layer(layer.name, tuple(formats), tuple(options))


def _point(layers: Sequence[_Layer], chosen: Sequence[int], rest: int) -> Point:
    taken = [layer.options[at] for layer, at in zip(layers, chosen, strict=True)]
    return Point(rest + sum(o.nbytes for o in taken), math.sqrt(sum(o.cost for o in taken)))


def _outcome(
    plan: Plan, fit: Fit, layers: Sequence[_Layer], chosen: Sequence[int], rest: int
) -> FitOutcome:
    options = [layer.options for layer in layers]

    def at(size: int) -> Point | None:
        if size - rest < smallest_size(options):
            return None
        return _point(layers, choose(options, size - rest), rest)

    return FitOutcome(
        chosen=_point(layers, chosen, rest),
        less=at(fit.size * 9 // 10),
        more=at(fit.size * 11 // 10),
        curve=_curve(options, rest),
        uniform=_uniform(plan, fit, layers, rest),
        measured=fit.sensitivity is not None,
        size=fit.size,
    )


def _curve(options: Sequence[Sequence[Option]], rest: int) -> tuple[Point, ...]:
    """Some of the best choices, evenly spread over the sizes; the last errs not at all."""
    points = curve(options)
    first, last = points[0].nbytes, points[-1].nbytes
    spread = {(p.nbytes - first) * _POINTS // max(last - first, 1): p for p in reversed(points)}
    return tuple(Point(rest + p.nbytes, math.sqrt(p.cost)) for p in reversed(spread.values()))


def _uniform(plan: Plan, fit: Fit, layers: Sequence[_Layer], rest: int) -> dict[str, Point]:
    planned = {layer.name: layer for layer in plan.quantized}
    points = {}
    for name in UNIFORM:
        method, nbytes, cost = named_method(name).method, rest, 0.0
        for layer in layers:
            of_plan = planned[layer.name]
            fmt = method.choose(of_plan.shape, plan.granularity).format
            if of_plan.kind == TABLE:
                fmt = choose_for_table().format
            if fmt is None:
                break
            widest = layer.options[1]
            per_error = math.sqrt(widest.cost) / format_error(layer.formats[1])
            nbytes += fmt.nbytes(of_plan.shape)
            cost += (per_error * format_error(fmt)) ** 2
        else:
            points[name] = Point(nbytes, math.sqrt(cost))
    return points


def outcome_notes(outcome: FitOutcome, plan: Plan, fit: Fit) -> tuple[str, ...]:
    """What the report says of a fit: error, size, what 10 % would buy, and widths by kind."""
    chosen, unit = outcome.chosen, "" if outcome.measured else " (assumed, to compare by)"
    lines = [
        f"fit: {gib(chosen.nbytes)} of {gib(outcome.size)} allowed; predicted error of the final "
        f"latent {chosen.error:.4f}{unit}"
    ]
    more = f"10 % more room: {outcome.more.error:.4f} at {gib(outcome.more.nbytes)}"
    less = (
        f"10 % less: {outcome.less.error:.4f} at {gib(outcome.less.nbytes)}"
        if outcome.less
        else "10 % less: nothing fits"
    )
    lines.append(f"fit: {more}; {less}")
    lines += [f"fit: {kind}: {widths}" for kind, widths in widths_by_kind(plan)]
    return tuple(lines)


def widths_by_kind(plan: Plan) -> list[tuple[str, str]]:
    """For layers whose names differ in numbers alone: how many have which format."""
    kinds: dict[str, Counter] = {}
    for layer in plan.layers:
        if layer.format is not None or layer.reason == _KEPT:
            kind = re.sub(r"(^|\.)\d+(?=\.)", r"\1*", layer.name)
            kinds.setdefault(kind, Counter())[str(layer.format or layer.dtype)] += 1
    return [
        (kind, ", ".join(f"{count} x {name}" for name, count in widths.most_common()))
        for kind, widths in kinds.items()
    ]
