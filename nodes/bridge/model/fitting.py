"""What the method "fit" needs to know of a MODEL: the room there is, and what was measured."""

from __future__ import annotations

import comfy.model_management
from comfy.model_patcher import ModelPatcher

from ....quant_core.errors import FitError
from ....quant_core.fit import Fit, Sensitivity
from ....quant_core.fit.fitting import GIB, gib
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
        return Fit(int(size_gib * GIB), sensitivity, stock_only), notes
    size, note = free_for(model)
    return Fit(size, sensitivity, stock_only), (*notes, note)


def free_for(model: ModelPatcher) -> tuple[int, str]:
    """The bytes that ``model`` may take on its device now, and how they were counted."""
    unload(model)
    device = model.load_device
    free = comfy.model_management.get_free_memory(device)
    activations = max(
        model.memory_required(_USUAL_LATENT), comfy.model_management.minimum_inference_memory()
    )
    size = int(free - activations)
    counted = (
        f"{gib(free)} are free on {device}, less {gib(activations)} for the activations of a "
        "picture of 1024 x 1024"
    )
    if size <= 0:
        raise FitError(
            f"size_gib is 0, which means what is free, but nothing is: {counted}. "
            "Set size_gib, or free memory."
        )
    return size, f"fit: size_gib is 0: {counted}."
