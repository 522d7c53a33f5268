"""What each layer's quantization costs: its weight, and its output while a sampler runs.

A layer's output is compared on the activations that the quantized model itself gives it, with what
the reference's weight makes of them in float32. So one model is loaded, not two, and the
reference's weights pass through the device a layer at a time.

Tested by tests/nodes/test_quantization_report.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack

import comfy.model_management
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import nn

from ....quant_core.layers import CONVOLUTIONS, layer_kind
from ....quant_core.measure.relative_error import Error, RunningError, error_of
from ..model.float_weight import effective_weight

ROWS = 256
"""Activation rows of a call that are compared, evenly spread: a layer treats all rows alike."""


def weight_errors(
    model: ModelPatcher, reference: ModelPatcher, layers: Iterable[str], on_layer: Callable
) -> dict[str, Error]:
    """The error of each layer's weight, by the layer's name. Both models must be unloaded.
    on_layer() is called before each layer."""
    errors = {}
    for layer in layers:
        on_layer()
        weights = (effective_weight(p, layer, model.load_device) for p in (model, reference))
        errors[layer] = error_of(*weights)
    return errors


def output_errors(
    model: ModelPatcher,
    reference: ModelPatcher,
    layers: Iterable[str],
    run: Callable[[ModelPatcher], object],
) -> dict[str, Error]:
    """The error of each layer's output, by the layer's name, for the layers that ``run`` calls.

    run: samples with the MODEL that it is given.

    The layers are watched by forward hooks, which are gone when this returns or raises. A compiled
    model runs uncompiled: what is compiled would keep the hooks.
    """
    plain = model.clone()
    plain.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY)
    running = {layer: RunningError() for layer in layers}
    with ExitStack() as hooks:
        for layer, sums in running.items():
            module = model.model.diffusion_model.get_submodule(layer)
            handle = module.register_forward_hook(_comparison(reference, layer, sums))
            hooks.callback(handle.remove)
        run(plain)
    errors = {layer: sums.error() for layer, sums in running.items()}
    return {layer: error for layer, error in errors.items() if error is not None}


def _comparison(reference: ModelPatcher, layer: str, sums: RunningError) -> Callable:
    def compare(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        x = inputs[0]
        if layer_kind(module) == "Linear":
            x, output = _some_rows(x), _some_rows(output)
        elif not isinstance(module, CONVOLUTIONS):
            return  # an embedding gives back rows of its weight: there is nothing more to learn
        weight = effective_weight(reference, layer, x.device)
        bias = None if module.bias is None else module.bias.to(x.device, torch.float32)
        multiply = F.linear if layer_kind(module) == "Linear" else module._conv_forward
        sums.add(output, multiply(x.float(), weight, bias))

    return compare


def _some_rows(x: torch.Tensor) -> torch.Tensor:
    """At most ROWS of the rows of x [..., K]: [M, K]."""
    rows = x.reshape(-1, x.shape[-1])
    return rows[:: -(-len(rows) // ROWS)]
