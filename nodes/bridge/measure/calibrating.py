"""Watch the activations of a MODEL's layers while ComfyUI's own sampler runs.

Tested by tests/nodes/test_calibrate_activations.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import comfy.model_management
import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import nn

from ....quant_core.calibration import ActivationStatistics, Calibration
from ....quant_core.layers import supported_layers
from ....quant_core.machine.fastest import Search
from .sampling import Sampling


def calibrate(model: ModelPatcher, sampling: Sampling, seed: int, percentile: float) -> Calibration:
    """The activations that every Linear layer of the diffusion model is given in one run.

    The layers are watched by forward hooks, which are gone when this returns or raises. A compiled
    model runs uncompiled: what is compiled would keep the hooks. Errors as
    ``ActivationStatistics``'s.
    """
    plain = model.clone()
    plain.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY)
    layers = [
        (name, module)
        for name, kind, module in supported_layers(model.model.diffusion_model, "transformer")
        if kind == "Linear"
    ]
    watched = {name: ActivationStatistics(percentile) for name, _ in layers}
    with ExitStack() as hooks:
        for name, module in layers:
            hooks.callback(module.register_forward_hook(_watch(watched[name])).remove)
        sampling.run(plain, seed, comfy.utils.ProgressBar(sampling.steps))
    called = {name: seen.result() for name, seen in watched.items() if seen.calls}
    return Calibration(called, percentile)


def _watch(statistics: ActivationStatistics) -> Callable:
    def watch(module: nn.Module, inputs: tuple, output: object) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        statistics.add(inputs[0])

    return watch


def fastest_search(
    model: ModelPatcher, calibration: Calibration | None, max_error: float
) -> Search:
    """The search of the method "fastest" for ``model``. It times the rows that the layers were
    calibrated with, the most where layers of one shape differ."""
    rows: dict[tuple[int, ...], int] = {}
    for name, _, module in supported_layers(model.model.diffusion_model, "transformer"):
        if calibration is not None and name in calibration.layers:
            shape = tuple(module.weight.shape)
            rows[shape] = max(calibration.layers[name].rows, rows.get(shape, 0))
    return Search(max_error, rows, model.load_device, model.model.get_dtype_inference())
