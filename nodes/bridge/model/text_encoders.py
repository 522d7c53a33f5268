"""A CLIP's text encoders: each is planned on its own, under patterns that may name any of them.

ComfyUI computes text encoders in full precision, whatever they are stored in: its own layers for
them have ``full_precision_mm`` set. Layers of ours multiply as their format says. Asked for full
precision, which is the default, the dynamic methods run as their weight-only counterparts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from comfy.model_management import module_size
from comfy.sd import CLIP
from torch import nn

from ....quant_core import GRANULARITIES, Plan, Report, UnknownNameError
from ....quant_core.applying.component import kernel_of
from ....quant_core.hardware import Hardware
from ....quant_core.layers import supported_layers
from ....quant_core.methods import FIT, MEASURED, Method, method_for, named_method
from ....quant_core.patterns import parse_patterns
from ....quant_core.planning.decisions import ALREADY
from ....quant_core.planning.filters import LayerFilter, check_include
from ....quant_core.planning.layer_plan import plan_layers
from ....quant_core.planning.plan import checked, exclude_warnings, resolve_preset
from ....quant_core.planning.remainder import Remainder, remainder_of
from .quantize_patcher import quantize_patcher
from .taken_over import take_over, taken_weights

BESIDE = "ComfyUI keeps it beside the encoder, as its own code computes with it"
MEMORY_NOTE = "This saves memory, not time: text encoders are computed in full precision."
# These need what no text encoder has: a calibration, or layers to be timed.
_ALWAYS_WEIGHT_ONLY = tuple(name for name in MEASURED if name != FIT)


def weight_only(method: str, quantized: bool = False) -> str:
    """The method that ``method`` (a name or alias) runs as in a text encoder that is computed in
    full precision, or ``quantized``. UnknownNameError."""
    found = named_method(method).method
    return (found if _multiplies(found, quantized) else _counterpart(found)).name


def _multiplies(method: Method, quantized: bool) -> bool:
    return quantized and method.name not in _ALWAYS_WEIGHT_ONLY


def _counterpart(method: Method) -> Method:
    return named_method(method.weight_only).method if method.weight_only else method


def plan_encoders(
    encoders: Mapping[str, nn.Module],
    method: str,
    granularity: str,
    presets: Mapping[str, str | None],
    include: str = "",
    exclude: str = "",
    hardware: Hardware | None = None,
) -> dict[str, Plan]:
    """A plan for each of ``encoders``, by its path in the CLIP (``t5xxl.transformer``).

    presets: by path, each as in ``plan_component``. include, exclude: patterns of full names
    (``t5xxl.transformer.encoder.block.0...``), so that ``t5xxl`` means all of that encoder.
    hardware: what multiplies quantized, by methods that round activations; None where everything is
    computed in full precision.

    UnknownNameError; PatternError for an include pattern that means no layer of any encoder;
    NothingToQuantizeError where nothing is left in any of them.
    """
    if granularity not in GRANULARITIES:
        raise UnknownNameError("granularity", granularity, GRANULARITIES)
    named = named_method(method)
    granularity = named.granularity or granularity
    runs, changed = _what_runs(named.method, hardware)
    joint = Plan(method, named.method.name, runs.name, "encoder", granularity, None)
    if joint.method == "none":
        return dict.fromkeys(encoders, joint)
    layers = {
        path: list(supported_layers(module, "encoder", tables=True))
        for path, module in encoders.items()
    }
    names = [f"{path}.{name}" for path in layers for name, _, _ in layers[path]]
    include, exclude = parse_patterns(include), parse_patterns(exclude)
    check_include(include, names)
    users = LayerFilter("encoder", None, include, exclude, tables=True)
    warnings = (*named.notes, *changed, *exclude_warnings(exclude, names))

    def plan(path: str) -> Plan:
        preset = resolve_preset(presets[path], [name for name, _, _ in layers[path]])
        own = LayerFilter("encoder", preset, tables=True)

        def reason_to_keep(name: str) -> str | None:
            return own.reason_to_keep(name) or users.reason_to_keep(f"{path}.{name}")

        decided = plan_layers(
            layers[path], lambda shape: runs.choose(shape, granularity), reason_to_keep
        )
        if hardware is not None:
            device = torch.device(hardware.device)
            decided = take_over(decided, encoders[path], reason_to_keep, device)
        planned = dataclasses.replace(
            joint,
            preset=None if preset is None else preset.name,
            layers=decided,
            remainder=remainder_of(encoders[path], layers[path]),
        )
        if not planned.quantized:
            return planned
        more, notes = _about_computing(planned, hardware)
        return dataclasses.replace(planned, warnings=(*warnings, *more), notes=notes)

    plans = {path: plan(path) for path in encoders}
    every_layer = tuple(layer for planned in plans.values() for layer in planned.layers)
    remedy = "Loosen include, exclude or preset."
    checked(dataclasses.replace(joint, layers=every_layer), remedy)
    return {
        path: checked(planned, remedy) if planned.with_action(ALREADY) else planned
        for path, planned in plans.items()
    }


def _what_runs(method: Method, hardware: Hardware | None) -> tuple[Method, list[str]]:
    """What ``method`` runs as in an encoder, and why that is another."""
    if _multiplies(method, hardware is not None):
        runs, fallback = method_for(method.name, hardware)
        return runs, [fallback] if fallback else []
    runs = _counterpart(method)
    if runs is method:
        return runs, []
    return runs, [f"{method.name} runs as {runs.name}, its weight-only counterpart."]


def _about_computing(plan: Plan, hardware: Hardware | None) -> tuple[list[str], tuple[str, ...]]:
    """Warnings and notes on how a planned encoder will be computed."""
    if hardware is None:
        return [], (MEMORY_NOTE,)
    slow = tuple(hardware.speed_problems(plan.quantized))
    kernel, dequantized = kernel_of(plan, torch.device(hardware.device)), "dequantize + matmul"
    if any(not each.startswith(dequantized) for each in kernel.split(", ")):
        return [], slow
    if any(layer.format.activations for layer in plan.quantized):
        return [f"compute gains no time: {plan.runs_as} is multiplied dequantized here."], slow
    warning = (
        f"compute has no effect: {plan.runs_as} rounds no activations. Choose int8-convrot, "
        "int8-dynamic or w4a8, or fp8-dynamic where the device multiplies FP8."
    )
    return [warning], (MEMORY_NOTE,)


def quantize_clip(
    clip: CLIP, plans: Mapping[str, Plan], *, device: torch.device | None
) -> tuple[CLIP, dict[str, Report]]:
    """Carry out ``plans`` on a copy of ``clip``; see ``quantize_patcher``, which does the work.

    The tokenizer is shared; options such as the CLIP layer and the schedule go along. Each report's
    bytes are its encoder's own, and those of what lies beside it (see ``with_what_is_beside``).
    """
    taken = {
        f"{path}.{name}": weight
        for path, plan in plans.items()
        for name, weight in taken_weights(clip.patcher, f"{path}.", plan).items()
    }
    patcher, done = quantize_patcher(
        clip.patcher,
        {f"{path}.": plan for path, plan in plans.items() if plan.quantized},
        compute_dtype=torch.float32,
        device=device,
        taken=taken,
    )
    quantized = clip.clone()
    quantized.patcher, quantized.cond_stage_model = patcher, patcher.model
    reports = kept_reports(clip, plans)
    for path in plans:
        if report := done.get(f"{path}."):
            reports[path] = dataclasses.replace(
                report,
                model_bytes_before=reports[path].model_bytes_before,
                model_bytes_after=module_size(patcher.model.get_submodule(path))
                + _bytes_beside(plans[path]),
            )
    return quantized, reports


def with_what_is_beside(plans: Mapping[str, Plan], model: nn.Module) -> dict[str, Plan]:
    """``plans`` that also list every tensor of a CLIP's ``model`` that lies outside its encoders,
    such as LTX-2's projection of text embeddings: with the encoder it belongs to by name, else with
    the first. The plans' bytes then sum to ComfyUI's size of the CLIP."""
    tensors: dict[str, dict[str, int]] = {path: {} for path in plans}
    for name, tensor in model.state_dict().items():
        if any(name.startswith(f"{path}.") for path in plans):
            continue
        owners = (path for path in plans if name.startswith(f"{path.partition('.')[0]}."))
        tensors[next(owners, next(iter(plans)))][name] = tensor.nbytes
    return {
        path: dataclasses.replace(plan, remainder=(*plan.remainder, *_beside(tensors[path])))
        for path, plan in plans.items()
    }


def _beside(sizes: Mapping[str, int]) -> list[Remainder]:
    names = tuple(sorted(sizes, key=lambda name: -sizes[name]))
    return [Remainder("tensor", BESIDE, names, sum(sizes.values()))] if sizes else []


def _bytes_beside(plan: Plan) -> int:
    return sum(each.bytes for each in plan.remainder if each.reason == BESIDE)


def kept_reports(clip: CLIP, plans: Mapping[str, Plan]) -> dict[str, Report]:
    """The reports of encoders that stay as they are."""
    sizes = {
        path: module_size(clip.patcher.model.get_submodule(path)) + _bytes_beside(plan)
        for path, plan in plans.items()
    }
    return {
        path: Report(plan, "unchanged", 0.0, sizes[path], sizes[path])
        for path, plan in plans.items()
    }
