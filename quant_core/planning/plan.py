"""Decide for every layer, from names, shapes and dtypes alone: its format, or why it is kept.

A plan is a frozen value. Making one reads no weight, so it works on the meta device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

from torch import nn

from ..detect import layer_quantized_as, stored_bytes
from ..errors import NothingToQuantizeError, UnknownNameError
from ..formats import Format
from ..formats.affine import ALGORITHMS
from ..hardware import Hardware, hardware_of
from ..layers import COMPONENT_TYPES, require_module, supported_layers
from ..machine.fastest import Search, fastest_choice
from ..methods import (
    FASTEST,
    GRANULARITIES,
    Choice,
    choose_for_convolution,
    method_for,
    named_method,
    with_algorithm,
)
from ..patterns import parse_patterns
from ..presets import PRESETS, Preset, generic_preset, get_preset
from .decisions import ALREADY, ALREADY_QUANTIZED, KEEP, QUANTIZE, LayerPlan, Plan
from .filters import LayerFilter, check_include, is_by_pattern, unmatched
from .remainder import other_owners, remainder_of
from .vae_rules import MEMORY_NOTE, SCOPES, require_vae_method
from .widths import with_preset_widths


def plan_component(
    model: nn.Module,
    method: str,
    component_type: str = "transformer",
    granularity: str = "per-row",
    *,
    preset: str | Preset | None = None,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] | None = None,
    scope: str = "decoder",
    int4_algorithm: str = "search",
    hardware: Hardware | None = None,
    search: Search | None = None,
    convolutions: bool = False,
) -> Plan:
    """Plan to quantize ``model`` with ``method`` (a name or alias).

    component_type: "encoder", "transformer" or "vae". granularity: "per-row" or "per-tensor" (int4
    has groups instead); what ``method`` itself says of it, as float8dq_e4m3_tensor does, counts
    more. preset: a name, "generic", a Preset, or None for the component's own filter alone.
    include, exclude: patterns (see ``patterns``), as a text of one a line or an iterable. scope:
    half of a vae, "decoder", "encoder" or "both". int4_algorithm: one of ``affine.ALGORITHMS``.
    hardware: where it will run (the accelerator, else the CPU). search: what "fastest" times.
    convolutions: whether those of a model that is not a VAE are quantized too, weight-only (see
    ``choose_for_convolution``); by default they are kept.

    UnknownNameError, UnsupportedMethodError (not for this component), PatternError (an include
    pattern that means nothing) and NothingToQuantizeError (all layers filtered out): ValueErrors.
    """
    require_module(model)
    named = named_method(method)
    resolved = named.method.name
    _require(component_type, "component type", COMPONENT_TYPES)
    _require(granularity, "granularity", GRANULARITIES)
    _require(scope, "scope", SCOPES)
    _require(int4_algorithm, "INT4 algorithm", ALGORITHMS)
    if component_type == "vae":
        require_vae_method(resolved)
    if resolved == "none":
        everything = remainder_of(model, ())
        return Plan(method, "none", "none", component_type, granularity, None, remainder=everything)
    granularity = named.granularity or granularity
    chosen, fallback = method_for(resolved, hardware := hardware or hardware_of())
    choose = chosen.choose
    if resolved == FASTEST:
        choose = partial(fastest_choice, search=search or Search())
    layers = list(supported_layers(model, component_type, convolutions))
    names = [name for name, _, _ in layers]
    include, exclude = parse_patterns(include, "include"), parse_patterns(exclude, "exclude")
    check_include(include, names)
    preset = resolve_preset(preset, names)
    decided = plan_layers(
        layers,
        lambda shape: with_algorithm(
            choose(shape, granularity)
            if len(shape) == 2 or component_type == "vae"
            else choose_for_convolution(chosen, shape, granularity),
            int4_algorithm,
        ),
        LayerFilter(component_type, preset, include, exclude, scope).reason_to_keep,
        other_owners(model, layers),
    )
    plan = Plan(
        requested=method,
        method=resolved,
        runs_as=chosen.name,
        component_type=component_type,
        granularity=granularity,
        preset=None if preset is None else preset.name,
        layers=with_preset_widths(decided, preset),
        remainder=remainder_of(model, layers),
        warnings=(
            *named.notes,
            *([fallback] if fallback else []),
            *exclude_warnings(exclude, names),
        ),
        notes=(MEMORY_NOTE,) if component_type == "vae" else (),
    )
    plan = replace(plan, notes=(*plan.notes, *hardware.speed_problems(plan.quantized)))
    third = "scope" if component_type == "vae" else "preset"
    return checked(plan, f"Loosen include, exclude or {third}.")


def plan_layers(
    layers: Iterable[tuple[str, str, nn.Module]],
    choose: Callable[[tuple[int, ...]], Choice],
    reason_to_keep: Callable[[str], str | None],
    shared: Mapping[int, str] | None = None,
) -> tuple[LayerPlan, ...]:
    """Decides for each layer (name, kind, module).

    choose: gives the format for a weight's shape. reason_to_keep: gives a reason for a layer's
    name, or None. shared: weights that others hold too (see ``other_owners``), which are kept.
    """
    layers, shared = list(layers), shared or {}
    plans = [_plan_layer(*layer, choose, reason_to_keep) for layer in layers]
    parameters = [id(module._parameters.get("weight", module)) for _, _, module in layers]
    pairs = list(zip(parameters, plans, strict=True))
    kept = {key: plan.name for key, plan in reversed(pairs) if plan.action != QUANTIZE} | {**shared}
    settled, done = {}, []
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
) -> LayerPlan:
    weight = module.weight
    size = stored_bytes(weight) if "weight" in module._parameters else 0
    shape = tuple(weight.shape)

    def layer(action: str, reason: str, after: int = size, fmt: Format | None = None) -> LayerPlan:
        dtype = str(weight.dtype).removeprefix("torch.")
        return LayerPlan(name, kind, shape, dtype, action, reason, size, after, fmt)

    quantized = layer_quantized_as(module)
    if quantized:
        return layer(ALREADY, f"already quantized: {quantized}")
    if "weight" not in module._parameters:
        return layer(KEEP, "its weight is computed from others (weight norm)")
    if reason := reason_to_keep(name):
        return layer(KEEP, reason)
    choice = choose(shape)
    if choice.format is None:
        return layer(KEEP, choice.note)
    after = choice.format.nbytes(shape)
    if after >= size:
        return layer(KEEP, f"{choice.format} would not be smaller")
    return layer(QUANTIZE, choice.note, after, choice.format)


def resolve_preset(preset: str | Preset | None, names: list[str]) -> Preset | None:
    """The preset that ``preset`` means for a model whose layers have ``names``. UnknownNameError
    for an unknown name."""
    if isinstance(preset, Preset) or preset is None:
        return preset
    if not isinstance(preset, str):
        raise UnknownNameError("preset", preset, ("generic", *PRESETS))
    return generic_preset(names) if preset == "generic" else get_preset(preset)


def exclude_warnings(exclude: tuple[str, ...], names: list[str]) -> list[str]:
    """A warning for each exclude pattern that matches no layer."""
    return [
        f"Exclude pattern {pattern!r} matches none of {len(names)} layers."
        for pattern in unmatched(exclude, names)
    ]


def checked(plan: Plan, remedy: str) -> Plan:
    """Returns ``plan`` if it quantizes something, or its method says that nothing is left to do.
    Otherwise NothingToQuantizeError, which ends with ``remedy``: every layer was filtered out.
    """
    if plan.quantized:
        return plan
    if plan.method == FASTEST:
        note = "No method is faster than the unquantized layers within the error allowed."
        return replace(plan, warnings=(*plan.warnings, note))
    already = plan.with_action(ALREADY)
    if already:
        kept = sum(is_by_pattern(layer.reason) for layer in plan.with_action(KEEP))
        note = (
            f"{len(already)} of {len(plan.layers)} layers are quantized already, and include or "
            f"exclude keeps {kept} that are not: nothing was done."
        )
        warnings, done = (*plan.warnings, *([note] if kept else [])), ALREADY_QUANTIZED
        return replace(plan, method=done, runs_as=done, warnings=warnings)
    raise NothingToQuantizeError(_nothing_left(plan, remedy))


def _nothing_left(plan: Plan, remedy: str) -> str:
    if not plan.layers:
        return (
            f"The {plan.component_type} has no layer that {plan.method} supports. "
            "Give a model with Linear layers, or a VAE with convolutions."
        )
    (reason, count), *_ = Counter(layer.reason for layer in plan.layers).most_common(1)
    return (
        f"No layer is left to quantize: {len(plan.layers)} of {len(plan.layers)} are kept, "
        f'{count} of them by "{reason}". {remedy}'
    )


def _require(value: str, kind: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise UnknownNameError(kind, value, valid)
