"""Choose one option for each layer, so that the total cost is least within a budget of bytes.

A multiple-choice knapsack. Going from each layer's smallest option along the lower hull of its
costs, in the order of what a byte buys, is optimal wherever a step ends on the budget. What is left
of the budget after that is spent by choosing anew for those layers whose steps were nearest to
where the budget ended.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_CORE, _BINS = 16, 4096
"""How many layers are chosen anew, and how finely their sizes are told apart."""


@dataclass(frozen=True)
class Option:
    """One way to store a layer. cost: what adds up over layers, here a squared error."""

    nbytes: int
    cost: float


def smallest_size(options: Sequence[Sequence[Option]]) -> int:
    """The bytes of the smallest option of every layer together."""
    return sum(min(each.nbytes for each in layer) for layer in options)


def choose(options: Sequence[Sequence[Option]], budget: int) -> list[int]:
    """The index of the chosen option of each layer; their bytes never exceed ``budget``.

    ValueError where even the smallest options are larger. 1000 layers of 8 options take about
    50 ms.
    """
    if smallest_size(options) > budget:
        raise ValueError(f"The smallest options take {smallest_size(options)} bytes, not {budget}.")
    chosen = [_smallest(layer) for layer in options]
    if not options:
        return chosen
    budget = min(budget, sum(max(each.nbytes for each in layer) for layer in options))
    left = budget - sum(layer[at].nbytes for layer, at in zip(options, chosen, strict=True))
    left, away = _along_hulls(options, chosen, left)
    nearest = sorted(range(len(options)), key=away.__getitem__)
    _core(options, chosen, left, nearest[:_CORE])
    return chosen


def _smallest(layer: Sequence[Option]) -> int:
    return min(range(len(layer)), key=lambda at: (layer[at].nbytes, layer[at].cost))


def _hull(layer: Sequence[Option]) -> list[int]:
    """The options on the lower convex hull of cost over bytes, from the smallest."""
    hull = [_smallest(layer)]
    for at in sorted(range(len(layer)), key=lambda at: (layer[at].nbytes, layer[at].cost)):
        if layer[at].cost >= layer[hull[-1]].cost:
            continue
        while len(hull) > 1 and _worth(layer, hull[-2], hull[-1]) <= _worth(layer, hull[-2], at):
            hull.pop()
        hull.append(at)
    return hull


def _worth(layer: Sequence[Option], narrow: int, wide: int) -> float:
    """How much cost one more byte saves."""
    more = layer[wide].nbytes - layer[narrow].nbytes
    return (layer[narrow].cost - layer[wide].cost) / max(more, 1e-9)


def curve(options: Sequence[Sequence[Option]]) -> list[Option]:
    """The best choices along the hulls: bytes and cost in all, from the smallest to the widest."""
    now = [layer[_smallest(layer)] for layer in options]
    points = [Option(sum(each.nbytes for each in now), math.fsum(each.cost for each in now))]
    for _, at, _, wide in _steps(options):
        option, last = options[at][wide], points[-1]
        nbytes = last.nbytes + option.nbytes - now[at].nbytes
        points.append(Option(nbytes, max(0.0, last.cost + option.cost - now[at].cost)))
        now[at] = option
    return points


def _steps(options: Sequence[Sequence[Option]]) -> list[tuple[float, int, int, int]]:
    """Every layer's steps along its hull, those that save most per byte first: (saving per byte,
    negative; layer; the step's number; the option it leads to)."""
    return sorted(
        (-_worth(layer, *pair), at, number, pair[1])
        for at, layer in enumerate(options)
        for number, pair in enumerate(itertools.pairwise(_hull(layer)))
    )


def _along_hulls(
    options: Sequence[Sequence[Option]], chosen: list[int], left: int
) -> tuple[int, list[float]]:
    """Takes the steps that fit, those that save most per byte first.

    Returns what is left of the budget, and how near each layer was to where it ran short: the
    ratio of what a byte buys there and in the layer's nearest step, 1 or more.
    """
    steps = _steps(options)
    reached, short = [0] * len(options), None
    for worth, at, number, wide in steps:
        more = options[at][wide].nbytes - options[at][chosen[at]].nbytes
        if reached[at] == number and more <= left:
            chosen[at], left = wide, left - more
            reached[at] += 1
        elif short is None:
            short = -worth
    away = [math.inf] * len(options)
    for worth, at, *_ in steps:
        if short:
            away[at] = min(away[at], max(-worth / short, short / max(-worth, 1e-300)))
    return left, away


def _core(
    options: Sequence[Sequence[Option]], chosen: list[int], left: int, core: Sequence[int]
) -> None:
    """Chooses again for the layers ``core``, with the result of trying all their combinations.

    Layer by layer it keeps those combinations that no other beats in both bytes and cost, and of
    those that differ by less than a ``_BINS``th of the budget the one of least cost.
    """
    budget = left + sum(options[at][chosen[at]].nbytes for at in core)
    nbytes, costs = np.zeros(1, dtype=np.int64), np.zeros(1)
    trail: list[tuple[np.ndarray, int]] = []
    spare = budget - sum(options[at][_smallest(options[at])].nbytes for at in core)
    least = 0
    for at in core:
        layer = options[at]
        least += options[at][_smallest(layer)].nbytes
        nbytes = np.add.outer(nbytes, [each.nbytes for each in layer]).ravel()
        costs = np.add.outer(costs, [each.cost for each in layer]).ravel()
        places = np.flatnonzero(nbytes <= least + spare)
        places = places[np.lexsort((costs[places], nbytes[places]))]
        lower = np.minimum.accumulate(costs[places])
        places = places[np.concatenate([[True], lower[1:] < lower[:-1]])]
        bins = (nbytes[places] - least) * _BINS // max(spare, 1)
        places = places[np.concatenate([bins[1:] != bins[:-1], [True]])]
        nbytes, costs = nbytes[places], costs[places]
        trail.append((places, len(layer)))
    place = len(nbytes) - 1
    if costs[place] >= sum(options[at][chosen[at]].cost for at in core):
        return
    for at, (places, count) in zip(reversed(core), reversed(trail), strict=True):
        place, chosen[at] = divmod(int(places[place]), count)
