"""The decision for one layer, from its name, shape and dtype: its format, or why it is kept.

Tested by tests/quant_core/planning/test_plan.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from torch import nn

from ..detect import layer_quantized_as, stored_bytes
from ..formats import Format
from ..layers import TABLE
from ..methods import Choice, choose_for_table
from ..sources import source_of
from .decisions import ALREADY, KEEP, QUANTIZE, LayerPlan


def plan_layers(
    layers: Iterable[tuple[str, str, nn.Module]],
    choose: Callable[[tuple[int, ...]], Choice],
    reason_to_keep: Callable[[str], str | None],
    shared: Mapping[int, str] | None = None,
    requantize: bool = False,
) -> tuple[LayerPlan, ...]:
    """Decides for each layer (name, kind, module).

    choose: gives the format for a weight's shape, but not for embeddings. reason_to_keep: gives a
    reason for a layer's name, or None. shared: weights that others hold too (see
    ``other_owners``), which are kept. requantize: weights that are quantized already are rounded
    anew where that may gain something (see ``Source.reason_to_stay``).
    """
    shared = shared or {}
    layers = list(layers)
    plans = [_plan_layer(*layer, choose, reason_to_keep, requantize) for layer in layers]
    parameters = [id(module._parameters.get("weight", module)) for _, _, module in layers]
    pairs = list(zip(parameters, plans, strict=True))
    kept = {key: plan.name for key, plan in reversed(pairs) if plan.action != QUANTIZE} | {**shared}
    settled: dict[int, LayerPlan] = {}
    done = []
    for key, plan in pairs:
        if plan.action == QUANTIZE and key in kept:
            reason = f"its weight is also {kept[key]}'s, which stays: both would be stored"
            size = plan.bytes_before
            plan = replace(plan, action=KEEP, reason=reason, format=None, bytes_after=size)
        first = settled.setdefault(key, plan)
        if first is not plan:
            plan = replace(plan, tied_to=first.name, bytes_before=0, bytes_after=0)
        done.append(plan)
    return tuple(done)


def _plan_layer(
    name: str,
    kind: str,
    module: nn.Module,
    choose: Callable[[tuple[int, ...]], Choice],
    reason_to_keep: Callable[[str], str | None],
    requantize: bool,
) -> LayerPlan:
    weight = module.weight
    size = stored_bytes(weight) if "weight" in module._parameters else 0
    quantized = layer_quantized_as(module)
    source = source_of(module) if quantized else None
    shape = tuple(weight.shape) if source is None else source.shape

    def layer(action: str, reason: str, after: int = size, fmt: Format | None = None) -> LayerPlan:
        dtype = str(weight.dtype).removeprefix("torch.")
        again = source.name if source and action == QUANTIZE else None
        return LayerPlan(
            *(name, kind, shape, dtype, action, reason, size, after, fmt), source=again
        )

    kept = reason_to_keep(name)
    if quantized:
        if source is None and requantize:
            quantized += ", which cannot be read here"
        elif kept and requantize:
            quantized += f"; {kept}"
        if kept or source is None or not requantize or kind == TABLE:
            return layer(ALREADY, f"already quantized: {quantized}")
    if "weight" not in module._parameters:
        return layer(KEEP, "its weight is computed from others (weight norm)")
    if weight.dtype.is_complex and source is None:
        return layer(KEEP, f"its numbers are complex ({str(weight.dtype).removeprefix('torch.')})")
    if kept:
        return layer(KEEP, kept)
    choice = choose_for_table() if kind == TABLE else choose(shape)
    if choice.format is None:
        return layer(ALREADY if source else KEEP, choice.note)
    after = choice.format.nbytes(shape)
    if source is not None:
        stays = source.reason_to_stay(choice.format)
        if stays:
            return layer(ALREADY, stays)
    elif after >= size:
        return layer(KEEP, f"{choice.format} would not be smaller")
    return layer(QUANTIZE, choice.note, after, choice.format)
