"""Quantize a plain ``nn.Module`` in place: plan, quantize every layer, then attach them all."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..calibration import Calibration, require_same_model
from ..carriers.torchao_tensors import require_torchao, to_torchao
from ..config import QuantConfig, config_of
from ..detect import module_bytes
from ..errors import CalibrationError, require_callable
from ..fit import Fit, Recipe, with_fit
from ..formats import Format, QuantizedWeight
from ..hardware import Hardware, default_device, device_named, hardware_of
from ..layers import submodule
from ..machine.fastest import Search
from ..methods import RANK
from ..patterns import parse_patterns
from ..planning.calibrated_layers import with_calibration
from ..planning.decisions import LayerPlan, Plan
from ..planning.plan import plan_component
from ..presets import Preset
from ..report import Report
from ..rounding import AUTO, CalibratedRounding, require_rounding, shifted_bias
from ..sources import float_weight
from .forward_loop import run_forward_loop
from .quantize_plan import quantize_plan, require_values
from .ray_quantizer import quantizing_on

log = logging.getLogger(__name__)


def quantize_component(
    model: nn.Module,
    method: str | QuantConfig | Mapping[str, Any],
    component_type: str = "transformer",
    granularity: str = "per-row",
    verbose: bool = False,
    *,
    preset: str | Preset | None = None,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] | None = None,
    scope: str = "decoder",
    int4_algorithm: str = "search",
    hardware: Hardware | None = None,
    search: Search | None = None,
    requantize: bool = False,
    rank: int = RANK,
    calibration: Calibration | None = None,
    rounding: str = AUTO,
    fit: Fit | Recipe | None = None,
    device: torch.device | str | None = None,
    on_layer: Callable[[LayerPlan], None] | None = None,
    ray: str | None = None,
) -> tuple[nn.Module, dict]:
    """Quantize the weights of ``model`` in place; returns ``(model, stats)``, the same object.

    method: a name; a configuration, which also says which layers are kept and may say the
    granularity; its dictionary; or one of torchao's own (AOBaseConfig). What has no effect in a
    configuration is in the notes.

    Other arguments as in ``plan_component``, ``with_calibration`` and ``quantize_plan``. verbose:
    log the whole report, not one line. Stats are ``Report.to_dict()``: quantized_layers,
    skipped_layers, total_layers, method, component_type, bytes before and after, and every layer
    with its reason. A model whose layers are all quantized already comes back untouched,
    stats["method"] == "already_quantized".

    calibration: of this model, from ``observe``: static scales, and where it has rows, biases
    corrected and weights rounded as ``rounding`` says ("auto", "nearest" or "compensated", see
    ``CalibratedRounding``). CalibrationError where it is of another model.

    fit: what the method "fit" is asked for: a size and measured sensitivities, or a recipe.
    FitError: without it, nothing fits, or the recipe is of another model.

    ray: spread the layers over the Ray cluster at this address, as in ``ray_cluster``; the weights
    are bit-equal on the same kind of device. ClusterError where that cannot be.

    Atomic: weights are attached after the last one is quantized; an error or a cancel before that
    leaves the model as it was. Extra memory at the peak: the result and about one layer.

    ValueError (see ``plan_component``), NonFiniteWeightError; TorchAOError (an ImportError) where
    torchao is missing or too old.
    """
    require_callable("on_layer", on_layer)
    device = None if device is None else device_named(device)
    prepared = prepare(
        model,
        method,
        component_type,
        granularity,
        preset=preset,
        include=include,
        exclude=exclude,
        scope=scope,
        int4_algorithm=int4_algorithm,
        hardware=hardware,
        search=search,
        requantize=requantize,
        rank=rank,
        calibration=calibration,
        fit=fit,
        device=device,
    )
    plan = prepared.plan
    rounds = calibrated_rounding(model, plan, prepared.calibration, rounding)
    before = module_bytes(model)
    started = time.perf_counter()
    if plan.quantized:
        require_torchao()
        # Tensors made in inference mode could never again be moved or saved outside it.
        read = _reader(model)
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            quantizing_on(ray, plan.quantized, read, rounds) as elsewhere,
        ):
            weights = quantize_plan(
                plan,
                read,
                device=device,
                on_layer=on_layer,
                round_layer=rounds,
                quantizer=elsewhere,
            )
            attach(model, weights)
            if rounds is not None:
                shift_biases(model, rounds.bias_shifts)
    report = Report(
        plan=plan,
        kernel=kernel_of(plan, _device_of(model)),
        seconds=time.perf_counter() - started,
        model_bytes_before=before,
        model_bytes_after=module_bytes(model),
        notes=prepared.notes,
        rounding={} if rounds is None else rounds.outcomes,
    )
    log.info("%s", report.to_markdown() if verbose else report.summary())
    return model, report.to_dict()


@dataclass(frozen=True)
class Prepared:
    """All that is decided before the first weight is quantized.

    calibration: the one that was given, or that a configuration's forward loop made. notes: what
    had no effect in a configuration.
    """

    plan: Plan
    calibration: Calibration | None
    notes: tuple[str, ...]


def prepare(
    model: nn.Module,
    method: str | QuantConfig | Mapping[str, Any],
    component_type: str = "transformer",
    granularity: str = "per-row",
    *,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] | None = None,
    hardware: Hardware | None = None,
    calibration: Calibration | None = None,
    fit: Fit | Recipe | None = None,
    device: torch.device | str | None = None,
    **options: Any,
) -> Prepared:
    """The plan by which ``quantize_component`` quantizes ``model``; changes nothing.

    Arguments and errors as there, but for those that say how the plan is carried out; options:
    further ones of ``plan_component``.
    """
    if calibration is not None and not isinstance(calibration, Calibration):
        raise CalibrationError(
            f"calibration is {calibration!r:.60}. Give a Calibration, from observe or "
            "load_calibration."
        )
    notes: tuple[str, ...] = ()
    config = config_of(method)
    if config is not None:
        meaning = config.checked_meaning()
        method, notes = meaning.method, meaning.notes
        granularity = meaning.granularity or granularity
        include = include or meaning.include
        exclude = (*parse_patterns(exclude, "exclude"), *meaning.exclude)
        calibration = calibration or run_forward_loop(model, config)
    plan = plan_component(
        model,
        method,
        component_type,
        granularity,
        include=include,
        exclude=exclude,
        hardware=hardware_of(device) if hardware is None else hardware,
        **options,
    )
    for layer in plan.quantized:
        require_values(layer.name, submodule(model, layer.name).weight)
    if calibration is not None and plan.quantized:
        require_same_model(calibration.model, model)
    plan = with_calibration(plan, calibration)
    return Prepared(with_fit(plan, fit, module_bytes(model)).plan, calibration, notes)


def quantize_vae(
    vae: nn.Module,
    method: str | QuantConfig | Mapping[str, Any] = "int8",
    *,
    scope: str = "decoder",
    **options,
) -> nn.Module:
    """Quantize a VAE's Conv1d, Conv2d, Conv3d and Linear weights in place; returns the VAE.

    ``quantize_component(vae, method, "vae", scope=scope, **options)`` does the same and returns the
    stats too. method: "int8" or "none"; others raise UnsupportedMethodError. scope: "decoder",
    "encoder" or "both", told apart by the names that ComfyUI and diffusers give the modules;
    ``post_quant_conv`` belongs to the decoder.
    """
    return quantize_component(vae, method, "vae", scope=scope, **options)[0]


def attach(model: nn.Module, weights: dict[str, QuantizedWeight]) -> None:
    """Replaces the weight of each named layer; layers that shared a weight go on sharing one
    tensor.

    All tensors are made before the first weight is replaced, because torchao may fail too.
    """
    made: dict[int, nn.Parameter] = {}
    for weight in weights.values():
        if id(weight) not in made:
            made[id(weight)] = nn.Parameter(to_torchao(weight), requires_grad=False)
    for name, weight in weights.items():
        submodule(model, name).weight = made[id(weight)]


def calibrated_rounding(
    model: nn.Module,
    plan: Plan,
    calibration: Calibration | None,
    rounding: str,
    on_progress: Callable[[int], None] | None = None,
) -> CalibratedRounding | None:
    """What rounds the layers of ``plan`` by ``calibration``; None without rows to round by.

    CalibrationError: the calibration is of another model, or "compensated" has none.
    """
    require_rounding(rounding, calibration)
    if calibration is None or not plan.quantized:
        return None
    require_same_model(calibration.model, model)
    if not calibration.rows:
        return None
    biased = [
        layer.name
        for layer in plan.quantized
        if getattr(submodule(model, layer.name), "bias", None) is not None
    ]
    return CalibratedRounding(calibration, rounding, biased, on_progress)


def shift_biases(model: nn.Module, shifts: Mapping[str, torch.Tensor]) -> None:
    """Adds to the bias of each named layer."""
    for name, shift in shifts.items():
        layer = submodule(model, name)
        shifted = shifted_bias(layer.bias.detach(), shift)
        layer.bias = nn.Parameter(shifted, requires_grad=layer.bias.requires_grad)


def kernel_of(
    plan: Plan,
    device: torch.device,
    other: Callable[[Format, torch.device], str | None] = lambda fmt, device: None,
) -> str:
    """What multiplies the quantized layers of ``plan`` on ``device``, in words.

    other: what multiplies a format instead of its own ``linear``, or None.
    """
    kernels = dict.fromkeys(
        "dequantize + convolution"
        if layer.kind.startswith("Conv")
        else other(layer.format, device) or layer.format.kernel(device)
        for layer in plan.quantized
    )
    return ", ".join(kernels) or "unchanged"


def _reader(model: nn.Module) -> Callable[[str], torch.Tensor]:
    return lambda name: float_weight(submodule(model, name))


def _device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), default_device())
