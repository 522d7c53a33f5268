"""What each layer's quantization costs: its weight, and its output while a sampler runs.

A layer's output is compared on the activations that the quantized model itself gives it, with what
the reference's weight makes of them in float32. So one model is loaded, not two, and the
reference's weights pass through the device a layer at a time.

Tested by tests/nodes/test_quantization_report.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import comfy.model_management
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import nn

from ....quant_core.formats import Format
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


@dataclass
class OutputSums:
    """The errors of one layer's output. all: over all calls. first, probe: on the first one, of the
    layer itself and of its reference rounded to a probe's format."""

    all: RunningError = field(default_factory=RunningError)
    first: Error | None = None
    probe: Error | None = None

    @property
    def over_probe(self) -> float | None:
        """How many times as large as the probe's the layer's error is; None where that was not
        measured."""
        if self.first is None or self.probe is None or not self.probe.relative_l2:
            return None
        return self.first.relative_l2 / self.probe.relative_l2


def output_errors(
    model: ModelPatcher,
    reference: ModelPatcher,
    layers: Iterable[str],
    run: Callable[[ModelPatcher], object],
    probes: Mapping[str, Format],
) -> dict[str, OutputSums]:
    """The error of each layer's output, by the layer's name, for the layers that ``run`` calls.

    run: samples with the MODEL that it is given. probes: by layer, the format that it is compared
    with on its first call.

    The layers are watched by forward hooks, which are gone when this returns or raises. A compiled
    model runs uncompiled: what is compiled would keep the hooks.
    """
    plain = model.clone()
    plain.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY)
    running = {layer: OutputSums() for layer in layers}
    with ExitStack() as hooks:
        for layer, sums in running.items():
            module = model.model.diffusion_model.get_submodule(layer)
            hook = _comparison(reference, layer, sums, probes.get(layer))
            hooks.callback(module.register_forward_hook(hook).remove)
        run(plain)
    return {layer: sums for layer, sums in running.items() if sums.all.pairs}


def _comparison(
    reference: ModelPatcher, layer: str, sums: OutputSums, probe: Format | None
) -> Callable:
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
        expected = multiply(x.float(), weight, bias)
        if probe is not None and not sums.all.pairs:
            rounded = probe.quantize(weight).dequantize(torch.float32)
            sums.first = error_of(output, expected)
            sums.probe = error_of(multiply(x.float(), rounded, bias), expected)
        sums.all.add(output, expected)

    return compare


def _some_rows(x: torch.Tensor) -> torch.Tensor:
    """At most ROWS of the rows of x [..., K]: [M, K]."""
    rows = x.reshape(-1, x.shape[-1])
    return rows[:: -(-len(rows) // ROWS)]
