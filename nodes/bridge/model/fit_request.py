"""What the method "fit" needs to know of a MODEL: the room there is, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import comfy.model_management
from comfy.model_patcher import ModelPatcher

from ....quant_core.errors import FitError
from ....quant_core.fit import Fit, Sensitivity, with_fit
from ....quant_core.fit.fitting import GIB, gib, require_size
from ....quant_core.planning.plan import Plan
from ..files.sensitivity_folder import find_sensitivity, require_fitting
from .float_weight import unload

_USUAL_LATENT = (2, 16, 128, 128)
"""A picture of 1024 x 1024 with guidance, for what activations will take."""


def fit_for(
    model: ModelPatcher,
    size_gib: float,
    sensitivity: Sensitivity | None,
    stock_only: bool,
) -> tuple[Fit, tuple[str, ...]]:
    """The request for ``with_fit``, and notes for the report.

    size_gib: 0 for what is free on the device, less what activations are expected to take. Without
    a ``sensitivity`` one is looked for in the models folder. FitError: no room, or the sensitivity
    is of another architecture.
    """
    network = model.model.diffusion_model
    notes: tuple[str, ...] = ()
    if sensitivity is None:
        sensitivity, notes = find_sensitivity(network)
    if sensitivity is None:
        notes += (
            "fit: no layer of this architecture was measured: widths are the preset's and then "
            "alike for every weight. Measure Sensitivity finds which layers matter, in one run of "
            "the sampler for each block.",
        )
    else:
        notes += require_fitting(sensitivity, network)
    if size_gib:
        require_size("size_gib", size_gib)
        return Fit(size_gib * GIB, sensitivity, stock_only), notes
    needed = model.memory_required(_USUAL_LATENT)
    size, note = _free_for(model, needed, "the activations of a picture of 1024 x 1024")
    return Fit(size, sensitivity, stock_only), (*notes, note)


def fit_encoders(
    patcher: ModelPatcher, plans: Mapping[str, Plan], size_gib: float, stock_only: bool
) -> tuple[dict[str, Plan], tuple[str, ...]]:
    """``plans`` of the encoders of one CLIP, by path, with the formats that fit all together, and
    notes. size_gib: of the whole CLIP, 0 for what is free. FitError as in ``with_fit``.
    """
    require_size("size_gib", size_gib or 0)
    size, notes = int((size_gib or 0) * GIB), ()
    if not size:
        size, note = _free_for(patcher, 0, "what ComfyUI keeps for computing")
        notes = (note,)
    joint = next(plan for plan in plans.values() if plan.quantized)
    layers = tuple(
        replace(
            layer, name=f"{path} {layer.name}", tied_to=layer.tied_to and f"{path} {layer.tied_to}"
        )
        for path, plan in plans.items()
        for layer in plan.layers
    )
    joint = replace(joint, preset=None, layers=layers, notes=())
    fitted = with_fit(joint, Fit(size, None, stock_only), patcher.model_size()).plan
    chosen = {layer.name: layer for layer in fitted.layers}
    result = {}
    for path, plan in plans.items():
        own = tuple(
            replace(chosen[f"{path} {layer.name}"], name=layer.name, tied_to=layer.tied_to)
            for layer in plan.layers
        )
        result[path] = replace(plan, layers=own)
    notes = (*fitted.notes, *notes, "fit: an encoder is not measured: every weight counts alike.")
    return result, notes


def _free_for(model: ModelPatcher, needed: float, what: str) -> tuple[int, str]:
    """The bytes that ``model`` may take on its device now, and how they were counted: what is free
    less ``needed``, or what ComfyUI always keeps for computing."""
    unload(model)
    device = model.load_device
    free = comfy.model_management.get_free_memory(device)
    needed = max(needed, comfy.model_management.minimum_inference_memory())
    size = int(free - needed)
    counted = f"{gib(free)} are free on {device}, less {gib(needed)} for {what}"
    if size <= 0:
        raise FitError(
            f"size_gib is 0, which means what is free, but nothing is: {counted}. "
            "Set size_gib, or free memory."
        )
    return size, f"fit: size_gib is 0: {counted}."
