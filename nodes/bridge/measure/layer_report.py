"""A quantized MODEL's layers, read off it and measured beside the MODEL it was made from.

Tested by tests/nodes/test_quantization_report.py.
"""

from __future__ import annotations

from functools import partial

import comfy.model_management
import comfy.utils
from comfy.model_patcher import ModelPatcher

from ....quant_core.fit import Sensitivity
from ....quant_core.measure.layer_table import LayerError, LayerTable, layer_table
from ....quant_core.measure.relative_error import Error
from ....quant_core.planning.decisions import KEEP, LayerPlan
from ..files.file_report import model_report
from ..files.provenance import provenance_of
from ..files.sensitivity_folder import require_fitting
from ..model.float_weight import is_readable, unload
from .latent_effects import how_measured, latent_effects, probes_of
from .layer_errors import OutputSums, output_errors, weight_errors
from .sampling import Sampling


def measure_layers(
    model: ModelPatcher,
    reference: ModelPatcher | None,
    sampling: Sampling | None,
    seed: int = 0,
    sensitivity: Sensitivity | None = None,
) -> LayerTable:
    """The layers of ``model``, with errors against ``reference``: of the weights, and with
    ``sampling`` of the outputs. Both MODELs are unloaded, and otherwise left as they are. With a
    ``sensitivity`` they are ranked by what they are expected to do to the final latent.

    ValueError: no layer is quantized; sampling without a reference, or one that does not fit.
    FitError: the sensitivity is of another architecture.
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
    network = model.model.diffusion_model
    told = () if sensitivity is None else require_fitting(sensitivity, network)
    weights, outputs = {}, {}
    if reference is not None:
        weights, outputs = _errors(model, reference, quantized, sampling, seed, sensitivity)
    effects = {}
    if sensitivity is not None:
        effects = latent_effects(sensitivity, quantized, weights, outputs)
        told += (how_measured(sampling is not None, reference is not None),)
    errors = [
        LayerError(
            layer,
            weights.get(layer.name),
            outputs[layer.name].all.error() if layer.name in outputs else None,
            effects.get(layer.name),
        )
        for layer in quantized
    ]
    notes = ["No reference is connected: errors were not measured."]
    if reference is not None:
        notes = _notes(errors, sampling, seed)
    return layer_table(layers, errors, [*notes, *told])


def _errors(
    model: ModelPatcher,
    reference: ModelPatcher,
    quantized: list[LayerPlan],
    sampling: Sampling | None,
    seed: int,
    sensitivity: Sensitivity | None,
) -> tuple[dict[str, Error], dict[str, OutputSums]]:
    """Errors of the weights, and with ``sampling`` of the outputs, by layer."""
    names = [layer.name for layer in quantized if _is_measurable(model, reference, layer)]
    bar = comfy.utils.ProgressBar(len(names) + (sampling.steps if sampling else 0))
    weights = weight_errors(model, reference, names, partial(_advance, bar))
    outputs = {}
    if sampling is not None:
        probes = probes_of(sensitivity, quantized)
        outputs = output_errors(
            model, reference, names, lambda m: sampling.run(m, seed, bar), probes
        )
    return weights, outputs


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
