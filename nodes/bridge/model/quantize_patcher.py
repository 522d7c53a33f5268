"""A ModelPatcher with quantized weights, made from another that stays as it is."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import comfy.hooks
import comfy.model_management
import comfy.utils
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from torch import nn

from ....quant_core.applying.component import calibrated_rounding, kernel_of
from ....quant_core.applying.quantize_plan import quantize_plan, quantizing_bytes
from ....quant_core.calibration import Calibration
from ....quant_core.detect import layer_quantized_as
from ....quant_core.formats import QuantizedWeight
from ....quant_core.layers import is_large_table
from ....quant_core.planning.decisions import LayerPlan, Plan
from ....quant_core.report import Report
from ....quant_core.rounding import AUTO, cost_of, rounding_bytes, shifted_bias
from ..cache.weight_cache import WeightCache
from ..copying.model_copy import copy_modules
from ..copying.rebinding import copy_to_devices, rebind
from ..files.provenance import note_provenance, quantized_by
from ..lora.adapters import LivePatchers, PatchSource
from ..tensor.native import native_kernel
from ..tensor.plain_layer import make_plain
from ..tensor.quantized_layer import quantize_layer
from .float_weight import source_weight, unload
from .progress import Progress
from .stock_saving import stock_saved_class

log = logging.getLogger(__name__)


def quantize_patcher(
    patcher: ModelPatcher,
    plans: Mapping[str, Plan],
    *,
    compute_dtype: torch.dtype,
    device: torch.device | None = None,
    cache: WeightCache | None = None,
    calibration: Calibration | None = None,
    rounding: str = AUTO,
    taken: Mapping[str, QuantizedWeight] = MappingProxyType({}),
) -> tuple[ModelPatcher, dict[str, Report]]:
    """Carry out ``plans``, by the prefix of their layer names ("diffusion_model."), on a copy.

    Pending patches (LoRAs added before) of quantized layers are added in float32 and rounded once
    with the weight; the others stay pending. compute_dtype: what the model computes in, which the
    quantized weights present themselves as. device: where the arithmetic runs (default: where each
    weight is). cache: where results are kept on disk. calibration: of the diffusion model, whose
    layers are rounded by it as ``rounding`` says, and their biases corrected; such results are not
    cached, because a cache keeps weights alone. taken: weights that are there already, by the full
    names of their layers; patches of these stay pending.

    The input patcher is unloaded, because a loaded clone's LoRA sits in the shared weights; nothing
    else about it changes. Cancelling in ComfyUI, or any error, leaves it as it was. ComfyUI first
    makes room for what ``quantizing_bytes`` tells.
    """
    unload(patcher)
    _make_room(patcher, plans, device, calibration is not None)
    rounds = {
        prefix: calibrated_rounding(
            comfy.utils.get_attr(patcher.model, prefix.removesuffix(".")),
            plan,
            calibration,
            rounding,
            Progress(sum(map(cost_of, plan.quantized))).advance,
        )
        for prefix, plan in plans.items()
        if calibration is not None
    }
    on_layer = _progress(sum(len(plan.quantized) for plan in plans.values()))
    before = patcher.model_size()
    weights: dict[str, QuantizedWeight] = {}
    seconds: dict[str, float] = {}
    for prefix, plan in plans.items():
        started = time.perf_counter()
        to_round = [la for la in plan.layers if f"{prefix}{la.name}" not in taken]
        quantize = partial(
            quantize_plan,
            replace(plan, layers=tuple(to_round)),
            lambda name, prefix=prefix: source_weight(patcher, f"{prefix}{name}.weight", device),
            device=device,
            on_layer=check_cancelled if rounds.get(prefix) else on_layer,
            round_layer=rounds.get(prefix),
        )
        if cache and rounds.get(prefix):
            cache.warnings.append(
                "cache: not used with the rows of a calibration. Save the result."
            )
            cache = None
        kept = cache and partial(cache.weights, patcher, prefix, plan, device, quantize)
        done = (kept or quantize)()
        weights |= {prefix + name: weight for name, weight in done.items()}
        seconds[prefix] = time.perf_counter() - started
    biases = {
        prefix + name: shift
        for prefix, each in rounds.items()
        if each is not None
        for name, shift in each.bias_shifts.items()
    }
    quantized = with_weights(patcher, {**weights, **taken}, compute_dtype, biases, {*taken})
    for plan in plans.values():
        note_provenance(quantized, quantized_by(patcher, plan))
    reports = {
        prefix: Report(
            plan=plan,
            kernel=kernel_of(plan, patcher.load_device, native_kernel),
            seconds=seconds[prefix],
            model_bytes_before=before,
            model_bytes_after=quantized.model_size(),
            rounding={} if rounds.get(prefix) is None else rounds[prefix].outcomes,
        )
        for prefix, plan in plans.items()
    }
    for report in reports.values():
        log.info("%s", report.summary())
    return quantized, reports


def _make_room(
    patcher: ModelPatcher,
    plans: Mapping[str, Plan],
    device: torch.device | None,
    calibrated: bool,
) -> None:
    """Ask ComfyUI to unload other models where the arithmetic on a GPU needs their memory."""
    if device is None or device.type == "cpu":
        return
    most = 0
    for prefix, plan in plans.items():
        names = {layer.name for layer in plan.quantized}
        patched = {name for name in names if f"{prefix}{name}.weight" in patcher.patches}
        rounding = max(map(rounding_bytes, plan.quantized), default=0) if calibrated else 0
        most = max(most, quantizing_bytes(plan, patched) + rounding)
    comfy.model_management.free_memory(most, device)


def _progress(layers: int) -> Callable[[LayerPlan], None]:
    bar = comfy.utils.ProgressBar(layers)

    def on_layer(layer: LayerPlan) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update(1)

    return on_layer


def check_cancelled(layer: LayerPlan) -> None:
    """Raises where the user has cancelled."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def with_weights(
    patcher: ModelPatcher,
    weights: Mapping[str, QuantizedWeight],
    compute_dtype: torch.dtype,
    bias_shifts: Mapping[str, torch.Tensor] = MappingProxyType({}),
    patched: Container[str] = (),
) -> ModelPatcher:
    """A ModelPatcher of a copy of ``patcher``'s model, with the quantized ``weights`` in it and
    ``bias_shifts`` added to its biases, both by the names of their layers. patched: layers whose
    patches are not in their weights and stay pending."""
    replaced = {f"{name}.weight" for name in weights}
    shifted = {f"{name}.bias": shift for name, shift in bias_shifts.items()}

    def parameter_of(name: str, parameter: nn.Parameter) -> torch.Tensor | None:
        if name in replaced:
            return None
        return shifted_bias(parameter, shifted[name]) if name in shifted else parameter

    model = copy_modules(patcher.model, parameter_of)
    model.device = patcher.offload_device
    if isinstance(model, BaseModel):
        model.__class__ = stock_saved_class(type(model))
    patchers = LivePatchers()
    for name, weight in weights.items():
        source = PatchSource(f"{name}.weight", patchers)
        layer, before = model.get_submodule(name), patcher.model.get_submodule(name)
        if layer_quantized_as(before):
            make_plain(layer, weight.shape)
        # A table keeps its dtype: as another, ComfyUI's text generation would decode all of it
        # for each token.
        dtype = before.weight.dtype if is_large_table(before) else compute_dtype
        quantize_layer(layer, weight, dtype, source)
    quantized = patcher.clone(model_override=(model, ({}, {}, {}, set())))
    quantized.patches = {
        key: patch
        for key, patch in quantized.patches.items()
        if key not in replaced or key.removesuffix(".weight") in patched
    }
    quantized.patches_uuid = uuid.uuid4()
    # Its own model, not a clone: it has its own size, and must not keep the original alive.
    quantized.clone_base_uuid = uuid.uuid4()
    quantized.parent = None
    quantized.size = 0
    # What scheduled LoRAs replaced and prepared is the original's. Preparing float weights for
    # later, as the faster mode does, ends in a copy that a QuantizedTensor refuses.
    quantized.hook_backup, quantized.cached_hook_patches = {}, {}
    quantized.hook_mode = comfy.hooks.EnumHookMode.MinVram
    rebind(quantized, patcher.model, patcher.patches)
    patchers.follow(quantized)
    register_rebuild(quantized)
    copy_to_devices(quantized)
    return quantized


def register_rebuild(patcher: ModelPatcher) -> None:
    """Let ComfyUI make an independent patcher of the same quantized model.

    It asks for one through ``cached_patcher_init``: a dynamic-VRAM model for TorchCompileModel and
    hooks, any model for multi-GPU. Stock reloads the file, which would lose the quantization.
    """
    patcher.cached_patcher_init = (
        _rebuild,
        (
            patcher.model,
            patcher.backup,
            type(patcher),
            patcher.load_device,
            patcher.offload_device,
        ),
    )


def _rebuild(
    model: nn.Module,
    backup: Mapping,
    patcher_class: type[ModelPatcher],
    load_device: torch.device,
    offload_device: torch.device,
    disable_dynamic: bool = False,
) -> ModelPatcher:
    def pristine(name: str, parameter: nn.Parameter) -> torch.Tensor:
        kept = backup[name].weight if name in backup else parameter
        # Where it is there already too: what is trained or moved there must not be ours, and
        # autograd takes no tensor that was made in inference mode, as nodes make theirs.
        return kept.clone() if kept.device == offload_device else kept.to(offload_device)

    copied = copy_modules(model, pristine)
    for module in copied.modules():
        module._buffers.update({n: b.clone() for n, b in module._buffers.items() if b is not None})
    copied.device = offload_device
    rebuilt = (ModelPatcher if disable_dynamic else patcher_class)(
        copied, load_device, offload_device
    )
    register_rebuild(rebuilt)
    return rebuilt
