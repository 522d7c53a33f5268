"""What is assumed of a model's layers while nobody has measured them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..patterns import first_match
from ..planning.plan import LayerPlan
from ..presets import PRESETS

_BITS_WIDER = 2


def assumed_per_error(layers: Iterable[LayerPlan], preset: str | None) -> dict[str, float]:
    """The assumed effect of each layer over the relative error of its weight: alike for every
    weight, and so that what a preset raises, where bits are few, gets two bits more."""
    layers = list(layers)
    total = sum(math.prod(layer.shape) for layer in layers) or 1
    raised = PRESETS[preset].raised if preset in PRESETS else ()
    patterns = [pattern for rule in raised for pattern in rule.layers]
    return {
        layer.name: math.sqrt(math.prod(layer.shape) / total)
        * (2**_BITS_WIDER if first_match(patterns, layer.name) else 1)
        for layer in layers
    }
