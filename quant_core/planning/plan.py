"""Decide for every layer, from names, shapes and dtypes alone: its format, or why it is kept.

A plan is a frozen value. Making one reads no weight, so it works on the meta device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from torch import nn

from ..codes.affine import ALGORITHMS
from ..errors import NothingToQuantizeError, UnknownNameError, require_kind
from ..hardware import Hardware, hardware_of, require_hardware
from ..layers import COMPONENT_TYPES, require_module, supported_layers
from ..machine.fastest import Search, fastest_choice
from ..methods import (
    FASTEST,
    GRANULARITIES,
    RANK,
    choose_for_convolution,
    method_for,
    named_method,
    require_rank,
    with_algorithm,
    with_rank,
)
from ..patterns import parse_patterns
from ..presets import PRESETS, Preset, generic_preset, get_preset
from .decisions import ALREADY, ALREADY_QUANTIZED, KEEP, LayerPlan, Plan
from .filters import LayerFilter, check_include, is_by_pattern, unmatched
from .layer_plan import plan_layers
from .remainder import other_owners, remainder_of
from .vae_rules import SCOPES, require_vae_method, vae_notes, vae_preset
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
    requantize: bool = False,
    rank: int = RANK,
    tables: bool = False,
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
    requantize: layers that are quantized already are rounded again, where the method's format has
    no more bits and other codes. rank: of the low-rank branch, where the method has one; 0
    leaves it out. tables: large embeddings are quantized too (see ``choose_for_table``), which only
    ComfyUI's models can look up.

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
    require_rank(rank, resolved)
    for argument, value in (("convolutions", convolutions), ("requantize", requantize)):
        require_kind(argument, value, bool, "Give True or False.")
    if component_type == "vae":
        require_vae_method(resolved)
    if resolved == "none":
        everything = remainder_of(model, ())
        return Plan(method, "none", "none", component_type, granularity, None, remainder=everything)
    granularity = named.granularity or granularity
    hardware = hardware_of() if hardware is None else hardware
    require_hardware(hardware)
    chosen, fallback = method_for(resolved, hardware)
    choose = chosen.choose
    if resolved == FASTEST:
        search = Search() if search is None else search
        require_kind("search", search, Search, "Give a Search, such as Search(max_error=0.02).")
        choose = partial(fastest_choice, search=search)
    layers = list(supported_layers(model, component_type, convolutions, tables))
    names = [name for name, _, _ in layers]
    include, exclude = parse_patterns(include, "include"), parse_patterns(exclude, "exclude")
    check_include(include, names)
    preset = resolve_preset(preset, names)
    if component_type == "vae" and preset is None:
        preset = vae_preset(resolved, [(name, kind) for name, kind, _ in layers])
    decided = plan_layers(
        layers,
        lambda shape: with_rank(
            with_algorithm(
                choose(shape, granularity)
                if len(shape) == 2 or component_type == "vae"
                else choose_for_convolution(chosen, shape, granularity),
                int4_algorithm,
            ),
            rank,
        ),
        LayerFilter(component_type, preset, include, exclude, scope, tables).reason_to_keep,
        other_owners(model, layers),
        requantize,
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
        notes=vae_notes(resolved) if component_type == "vae" else (),
    )
    plan = replace(
        plan,
        notes=(*plan.notes, *hardware.speed_problems(plan.quantized)),
        warnings=(*plan.warnings, *requantizing_warnings(plan.quantized)),
    )
    third = "scope" if component_type == "vae" else "preset"
    return checked(plan, f"Loosen include, exclude or {third}.")


def requantizing_warnings(layers: Iterable[LayerPlan]) -> list[str]:
    """What to know of ``layers`` that were quantized before: one warning, or none."""
    again = Counter(f"{layer.source} to {layer.format}" for layer in layers if layer.source)
    if not again:
        return []
    told = ", ".join(f"{count} from {what}" for what, count in again.most_common())
    return [
        f"{again.total()} layers were quantized before ({told}): their two roundings add up. "
        "An unquantized file loses less."
    ]


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
