"""A quantized MODEL's layers, read off it and measured beside the MODEL it was made from.

Tested by tests/nodes/test_quantization_report.py.
"""

from __future__ import annotations

from functools import partial

import comfy.model_management
import comfy.utils
from comfy.model_patcher import ModelPatcher

from ....quant_core.measure.layer_table import LayerError, LayerTable, layer_table
from ....quant_core.planning.decisions import KEEP, LayerPlan
from ..files.file_report import model_report
from ..files.provenance import provenance_of
from ..model.float_weight import is_readable, unload
from .layer_errors import output_errors, weight_errors
from .sampling import Sampling


def measure_layers(
    model: ModelPatcher, reference: ModelPatcher | None, sampling: Sampling | None, seed: int = 0
) -> LayerTable:
    """The layers of ``model``, with errors against ``reference``: of the weights, and with
    ``sampling`` of the outputs. Both MODELs are unloaded, and otherwise left as they are.

    ValueError: no layer is quantized; sampling without a reference, or one that does not fit.
    """
    for patcher in filter(None, (model, reference)):
        unload(patcher)
    layers = model_report(model, provenance_of(model), 0.0).plan.layers
    quantized = [layer for layer in layers if layer.action != KEEP]
    if not quantized:
        raise ValueError(
            f"None of the MODEL's {len(layers)} layers is quantized. "
            "Connect the output of Quantize Model or of Load Quantized Model."
        )
    if reference is None and sampling is not None:
        raise ValueError(
            "positive and latent_image are connected, but reference is not. "
            "Connect the MODEL before it was quantized: outputs are compared with its own."
        )
    if reference is None:
        note = "No reference is connected: errors were not measured."
        return layer_table(layers, map(LayerError, quantized), [note])
    names = [layer.name for layer in quantized if _is_measurable(model, reference, layer)]
    bar = comfy.utils.ProgressBar(len(names) + (sampling.steps if sampling else 0))
    weights = weight_errors(model, reference, names, partial(_advance, bar))
    outputs = {}
    if sampling is not None:
        outputs = output_errors(model, reference, names, lambda m: sampling.run(m, seed, bar))
    errors = [LayerError(la, weights.get(la.name), outputs.get(la.name)) for la in quantized]
    return layer_table(layers, errors, _notes(errors, sampling, seed))


def _notes(errors: list[LayerError], sampling: Sampling | None, seed: int) -> list[str]:
    notes = ["Weights: with the LoRAs of each MODEL, against those of reference."]
    if sampling is not None:
        called = sum(each.output is not None for each in errors)
        notes.append(
            f"Outputs: on the activations of {sampling.steps} steps of {sampling.sampler_name}, "
            f"seed {seed}, cfg {sampling.cfg:g}; {called} of {len(errors)} layers were called."
        )
    unread = sum(each.weight is None for each in errors)
    if unread:
        notes.append(f"{unread} layers hold weights of another pack, which were not read.")
    return notes


def _is_measurable(model: ModelPatcher, reference: ModelPatcher, layer: LayerPlan) -> bool:
    own = model.model.diffusion_model.get_submodule(layer.name).weight
    try:
        other = reference.model.diffusion_model.get_submodule(layer.name).weight
    except AttributeError:
        other = None
    if other is None or other.shape != own.shape:
        found = "has no such layer" if other is None else f"has {list(other.shape)} there"
        raise ValueError(
            f"reference is another model: {layer.name}.weight is {list(own.shape)}, and it "
            f"{found}. Connect the MODEL that was quantized."
        )
    return is_readable(own) and is_readable(other)


def _advance(bar: comfy.utils.ProgressBar) -> None:
    comfy.model_management.throw_exception_if_processing_interrupted()
    bar.update(1)
