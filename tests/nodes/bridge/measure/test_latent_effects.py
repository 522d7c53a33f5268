"""Quantization Report and Quantize Model with a sensitivity: what layers do to the final latent."""

import json

import pytest

from lab.sampling import relative_l2

pytestmark = pytest.mark.usefixtures("comfy")

LAYER = "single_blocks.0.linear1"
MEASURED = ("double_blocks.0.img_mlp.0", "double_blocks.0.txt_attn.proj", LAYER)


@pytest.fixture
def sensitivity(flux_patcher, short_run):
    """Of three layers, each measured alone, with the run that ``short_run`` is."""
    from graphquant.nodes.bridge.measure import sensing
    from graphquant.nodes.bridge.measure.sampling import Sampling
    from graphquant.quant_core.calibration import fingerprint_of
    from graphquant.quant_core.fit import Sensitivity

    formats = sensing.layers_to_measure(flux_patcher)
    run = Sampling(
        short_run["positive"], None, short_run["latent_image"], 1, 1.0, "euler", "simple"
    )
    effects = {}
    todo = sensing.units({name: formats[name] for name in MEASURED}, by_block=False)
    sensing.measure_effects(flux_patcher, run, 0, todo, lambda unit, found: effects.update(found))
    model = fingerprint_of(flux_patcher.model.diffusion_model)
    return Sensitivity("flux1", model, sensing.PROBE, effects)


@pytest.mark.parametrize("method", ["int6", "int3", "w4a8"])
def test_with_a_sensitivity_layers_are_ranked_by_what_they_do_to_the_final_latent(
    flux_patcher, quantize, measure, short_run, sensitivity, method
):
    """Each expected effect is near what the layer, quantized alone, really does."""
    from graphquant.nodes.bridge.measure.sampling import Sampling
    from graphquant.nodes.quantize_model import GQQuantizeModel

    report = measure(
        quantize(flux_patcher, method), flux_patcher, **short_run, sensitivity=sensitivity
    )
    first = [each["name"] for each in report["quantized"][:3]]
    assert set(first) == set(MEASURED)
    effects = {each["name"]: each["effect"] for each in report["quantized"][:3]}
    assert list(effects.values()) == sorted(effects.values(), reverse=True)
    assert all(each["effect"] is None for each in report["quantized"][3:])
    assert report["effect"] == pytest.approx(sum(e * e for e in effects.values()) ** 0.5)

    class Bar:
        def update(self, steps):
            pass

    run = Sampling(
        short_run["positive"], None, short_run["latent_image"], 1, 1.0, "euler", "simple"
    )
    plain = run.run(flux_patcher, 0, Bar())
    for name, effect in effects.items():
        alone = GQQuantizeModel.execute(flux_patcher, method, include=name).result[0]
        assert effect == pytest.approx(relative_l2(run.run(alone, 0, Bar()), plain), rel=0.35)


def test_without_a_run_effects_rest_on_weights_and_without_a_reference_on_formats(
    flux_patcher, quantize, measure, sensitivity, short_run
):
    model = quantize(flux_patcher, "int6")
    sampled, weighed, told = (
        measure(model, *inputs, **options, sensitivity=sensitivity)
        for inputs, options in (((flux_patcher,), short_run), ((flux_patcher,), {}), ((), {}))
    )
    assert "the errors of the outputs" in sampled["notes"][-1]
    assert "the errors of the weights" in weighed["notes"][-1]
    assert "the errors of the formats" in told["notes"][-1]
    for other in (weighed, told):
        assert other["effect"] == pytest.approx(sampled["effect"], rel=0.35)


def test_the_effect_is_in_the_text_the_chart_and_the_panel(
    flux_patcher, quantize, short_run, sensitivity
):
    from graphquant.nodes.quantization_report import GQQuantizationReport

    output = GQQuantizationReport.execute(
        quantize(flux_patcher, "int4"), flux_patcher, **short_run, sensitivity=sensitivity
    )
    text, values, _ = output.result
    effect = json.loads(values)["effect"]
    assert f"expected change of the final latent {effect:.4f}, most by " in text.splitlines()[0]
    assert "latent L2" in text and output.ui["text"] == (text,)
    (said,) = output.ui["graphquant_verdict"]
    assert said["key"] == "latentEffect" and said["values"]["whole"] == f"{effect:.4f}"


def test_quantize_model_tells_the_effect_of_its_layers_too(
    flux_patcher, sensitivity, quantize, wan_patcher
):
    from graphquant.nodes.quantize_model import GQQuantizeModel
    from graphquant.quant_core.errors import FitError

    output = GQQuantizeModel.execute(flux_patcher, "int4", sensitivity=sensitivity)
    report = output.ui["graphquant"][0]
    effects = {e["name"]: e["effect"] for e in report["layers"] if e["effect"] is not None}
    assert set(effects) == set(MEASURED)
    assert "- expected change of the final latent: 0." in output.result[1]
    assert "no effect" not in output.result[1]
    plain = GQQuantizeModel.execute(flux_patcher, "int4")
    assert "final latent" not in plain.result[1]
    with pytest.raises(FitError, match="is of another architecture, flux1"):
        GQQuantizeModel.execute(wan_patcher, "int4", sensitivity=sensitivity)
