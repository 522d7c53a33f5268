"""Quantization Report on the real ComfyUI: true figures, and MODELs that stay as they are."""

import json

import pytest
import torch

from lab import workflows
from lab.sampling import relative_l2
from lab.tiny_models import FLUX

pytestmark = pytest.mark.usefixtures("comfy")

LAYER = "single_blocks.0.linear1"


def rows(report):
    return {each["name"]: each for each in report["quantized"]}


def weight(patcher, layer=LAYER):
    return patcher.model.diffusion_model.get_submodule(layer).weight


@pytest.mark.parametrize(("method", "error"), [("int8", 0.0070), ("int4", 0.0945)])
def test_weight_errors_are_those_of_the_weights_worst_first(
    flux_patcher, quantize, measure, method, error
):
    quantized = quantize(flux_patcher, method)
    report = measure(quantized, flux_patcher)
    found = rows(report)
    expected = relative_l2(weight(quantized).dequantize(), weight(flux_patcher))
    assert found[LAYER]["weight"]["relative_l2"] == pytest.approx(expected, rel=1e-4)
    assert found[LAYER]["weight"]["relative_l2"] == pytest.approx(error, rel=0.05)
    errors = [each["weight"]["relative_l2"] for each in report["quantized"]]
    assert errors == sorted(errors, reverse=True)
    assert found[LAYER]["format"].startswith(method)
    assert all(each["output"] is None for each in report["quantized"])
    assert len(report["kept"]) == 42 - len(errors)
    assert all(layer["reason"] for layer in report["kept"])


def test_outputs_are_compared_on_what_the_sampler_feeds_the_layers(
    flux_patcher, quantize, measure, short_run
):
    quantized = quantize(flux_patcher, "int8")
    report = measure(quantized, flux_patcher, **short_run)
    outputs = [each["output"]["relative_l2"] for each in report["quantized"]]
    assert len(outputs) > 20
    assert outputs == sorted(outputs, reverse=True)
    assert all(1e-4 < error < 0.03 for error in outputs)
    assert report["notes"][1] == (
        f"Outputs: on the activations of 1 steps of euler, seed 0, cfg 1; "
        f"{len(outputs)} of {len(outputs)} layers were called."
    )


def test_activations_in_eight_bits_cost_more_than_the_weights_alone(
    flux_patcher, quantize, measure, short_run
):
    weights, both = (
        rows(measure(quantize(flux_patcher, method), flux_patcher, **short_run))
        for method in ("int8", "int8-dynamic")
    )
    assert both[LAYER]["weight"] == weights[LAYER]["weight"]
    ratio = both[LAYER]["output"]["relative_l2"] / weights[LAYER]["output"]["relative_l2"]
    assert 1.1 < ratio < 3


@pytest.mark.parametrize(
    ("method", "weight_error"), [("int8-convrot", 0.0077), ("w6a8", 0.0202), ("w4a8", 0.0712)]
)
def test_rotated_weights_are_compared_in_the_weight_s_own_basis(
    flux_patcher, quantize, measure, short_run, method, weight_error
):
    report = measure(quantize(flux_patcher, method), flux_patcher, **short_run)
    layer = rows(report)[LAYER]
    assert "rotated by" in layer["format"]
    assert layer["weight"]["relative_l2"] == pytest.approx(weight_error, rel=0.1)
    # Its INT8 activations add their own error to the weight's.
    assert 0.9 < layer["output"]["relative_l2"] / layer["weight"]["relative_l2"] < 2


def test_one_damaged_layer_comes_first(flux_patcher, quantize, measure, short_run):
    quantized = quantize(flux_patcher, "int8")
    weight(quantized, "double_blocks.0.img_mlp.0")._params.scale.mul_(1.5)
    report = measure(quantized, flux_patcher, **short_run)
    first = report["quantized"][0]
    assert first["name"] == "double_blocks.0.img_mlp.0"
    assert first["weight"]["relative_l2"] == pytest.approx(0.5, abs=0.01)
    assert first["output"]["relative_l2"] == pytest.approx(0.5, abs=0.1)


def test_both_models_are_bit_identical_before_and_after(
    flux_patcher, quantize, measure, short_run, sample
):
    quantized = quantize(flux_patcher, "int4")
    before = [sample(model, steps=1) for model in (flux_patcher, quantized)]
    measure(quantized, flux_patcher, **short_run)
    after = [sample(model, steps=1) for model in (flux_patcher, quantized)]
    assert all(map(torch.equal, before, after))
    for model in (flux_patcher, quantized):
        modules = model.model.modules()
        assert not any(module._forward_hooks for module in modules)


def test_a_loaded_clone_s_lora_is_not_taken_for_the_reference_s_weight(
    flux_patcher, quantize, measure, with_lora, sample
):
    quantized = quantize(flux_patcher, "int8")
    expected = rows(measure(quantized, flux_patcher))
    patched, _ = with_lora(flux_patcher, [LAYER])
    sample(patched, steps=1)  # its weights now sit in the module that both share
    assert rows(measure(quantized, flux_patcher)) == expected
    assert rows(measure(quantized, patched))[LAYER]["weight"]["relative_l2"] > 0.05


def test_a_lora_on_both_sides_adds_no_error(flux_patcher, quantize, measure, with_lora, short_run):
    quantized = quantize(flux_patcher, "int8")
    plain, italic = (with_lora(model, [LAYER])[0] for model in (flux_patcher, quantized))
    report = rows(measure(italic, plain, **short_run))
    assert report[LAYER]["weight"]["relative_l2"] < 0.0095
    assert report[LAYER]["output"]["relative_l2"] < 0.02


def test_cancelling_takes_the_hooks_off(flux_patcher, quantize, measure, short_run, monkeypatch):
    import comfy.model_management

    quantized = quantize(flux_patcher, "int8")
    calls = []

    def interrupt():
        calls.append(None)
        if len(calls) > 50:
            raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(
        comfy.model_management, "throw_exception_if_processing_interrupted", interrupt
    )
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        measure(quantized, flux_patcher, **short_run)
    assert not any(module._forward_hooks for module in quantized.model.modules())


def test_without_a_reference_it_tells_formats_and_bytes_and_says_what_is_missing(
    flux_patcher, quantize
):
    from graphquant.nodes.quantization_report import GQQuantizationReport

    output = GQQuantizationReport.execute(quantize(flux_patcher, "fp8-weight-only"))
    text, values, chart = output.result
    assert "- No reference is connected: errors were not measured." in text
    assert json.loads(values)["quantized"][0]["bytes_after"] > 1000
    assert chart.shape[0] == 1 and chart.shape[3] == 3 and 0 <= chart.min() < chart.max() <= 1
    assert output.ui["text"] == (text,)


def test_a_layerwise_cast_is_measured_too_embeddings_and_convolutions_included(
    wan_patcher, measure
):
    from graphquant.nodes.layerwise_fp8_cast import GQLayerwiseFP8Cast

    cast = GQLayerwiseFP8Cast.execute(wan_patcher, "float8_e4m3fn", skip_patterns="")[0]
    report = rows(measure(cast, wan_patcher))
    assert report["patch_embedding"]["kind"] == "Conv3d"
    assert report["patch_embedding"]["weight"]["relative_l2"] == pytest.approx(0.0265, abs=0.003)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (("plain", None, {}), r"None of the MODEL's \d+ layers is quantized. Connect the output"),
        (("int8", "wan", {}), r"reference is another model: double_blocks.0.*has no such layer"),
        (("int8", "plain", {"positive": []}), "latent_image is not connected: the short run needs"),
        (("int8", None, {"positive": [], "latent_image": {}}), "are connected, but reference is"),
    ],
    ids=["not quantized", "another model", "half a run", "no reference"],
)
def test_wrong_connections_are_refused(
    flux_patcher, wan_patcher, quantize, measure, inputs, message
):
    models = {"plain": flux_patcher, "wan": wan_patcher, None: None}
    model, reference, further = inputs
    model = quantize(flux_patcher, model) if model == "int8" else models[model]
    with pytest.raises(ValueError, match=message):
        measure(model, models[reference], **further)


def test_it_runs_over_http_and_shows_its_chart(server):
    prompt = workflows.quantized(FLUX, "int8")
    prompt = {name: prompt[name] for name in ("load", "condition", "empty", workflows.QUANTIZE)}
    prompt["measure"] = {
        "class_type": "GQQuantizationReport",
        "inputs": {
            "model": [workflows.QUANTIZE, 0],
            "reference": ["load", 0],
            "positive": ["condition", 0],
            "latent_image": ["empty", 0],
            "steps": 1,
        },
    }
    outputs = server.run(prompt)["outputs"]["measure"]
    assert outputs["text"][0].splitlines()[0].startswith("32 of 42 layers quantized")
    assert "worst output: " in outputs["text"][0]
    assert outputs["images"][0]["type"] == "temp"
