"""Calibrate Activations on the real ComfyUI: what the layers are given, and a MODEL left alone."""

import pytest
import torch

from lab.nodes.noise import conditioning
from lab.tiny_models import FLUX

pytestmark = pytest.mark.usefixtures("comfy")

LAYER = "double_blocks.0.img_mlp.0"


@pytest.fixture
def calibrate():
    """``calibrate(model, **inputs)`` -> the calibration, of two steps."""
    from graphquant.nodes.calibrate_activations import GQCalibrateActivations

    positive = conditioning(
        0, FLUX.context_width, FLUX.context_length, FLUX.pooled_width, FLUX.guidance
    )
    latent = {"samples": torch.zeros(1, *FLUX.latent)}

    def run(model, **inputs):
        inputs = {"steps": 2, **inputs}
        return GQCalibrateActivations.execute(model, positive, latent, **inputs).result

    return run


def test_every_layer_s_largest_activation_is_what_the_sampler_gave_it(
    flux_patcher, calibrate, sample
):
    seen = []
    layer = flux_patcher.model.diffusion_model.get_submodule(LAYER)
    handle = layer.register_forward_hook(lambda module, inputs, y: seen.append(inputs[0].clone()))
    calibration, report = calibrate(flux_patcher)
    handle.remove()
    found = calibration.layers[LAYER]
    assert found.maximum == pytest.approx(max(x.abs().max().item() for x in seen))
    assert (found.calls, found.rows) == (len(seen), seen[0].shape[0] * seen[0].shape[1])
    assert len(calibration.layers) == 42
    assert report.startswith("42 layers calibrated; all of each one's activations.")


def test_a_percentile_lies_below_the_maximum(flux_patcher, calibrate):
    whole, most = (calibrate(flux_patcher, percentile=p)[0] for p in (100.0, 99.0))
    assert 0 < most.layers[LAYER].maximum < 0.9 * whole.layers[LAYER].maximum


def test_the_model_and_its_layers_are_left_as_they_were(flux_patcher, calibrate, sample):
    before = sample(flux_patcher)
    calibrate(flux_patcher)
    assert torch.equal(sample(flux_patcher), before)
    assert not any(m._forward_hooks for m in flux_patcher.model.diffusion_model.modules())


@pytest.mark.parametrize("method", ["int8-convrot", "w6a8", "w4a8"])
def test_a_rotated_copy_is_calibrated_for_the_original(flux_patcher, calibrate, method):
    """Its layers are given plain activations: they rotate them themselves."""
    from graphquant.nodes.quantize_model import GQQuantizeModel

    plain, _ = calibrate(flux_patcher)
    copied, _ = calibrate(GQQuantizeModel.execute(flux_patcher, method).result[0])
    assert copied.layers.keys() == plain.layers.keys()
    for name, seen in plain.layers.items():
        assert copied.layers[name].maximum == pytest.approx(seen.maximum, rel=0.3), name
    rows = [each.rows[LAYER].float() for each in (plain, copied)]
    assert (rows[0] - rows[1]).norm() < 0.3 * rows[0].norm()
    output = GQQuantizeModel.execute(flux_patcher, method, calibration=copied)
    layers = output.ui["graphquant"][0]["layers"]
    ways = {layer["rounding"]["way"] for layer in layers if layer["action"] == "quantize"}
    assert "compensated" in ways


def test_the_hooks_are_gone_after_an_error(flux_patcher, calibrate):
    flux_patcher.model.diffusion_model.img_in.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite activations"):
        calibrate(flux_patcher)
    assert not any(m._forward_hooks for m in flux_patcher.model.diffusion_model.modules())


def test_fastest_times_with_the_rows_of_the_calibration(flux_patcher, calibrate):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    calibration, _ = calibrate(flux_patcher)
    shape = tuple(flux_patcher.model.diffusion_model.get_submodule(LAYER).weight.shape)
    rows = max(
        seen.rows
        for name, seen in calibration.layers.items()
        if tuple(flux_patcher.model.diffusion_model.get_submodule(name).weight.shape) == shape
    )
    output = GQQuantizeModel.execute(flux_patcher, "fastest", calibration=calibration)
    layers = output.ui["graphquant"][0]["layers"]
    reason = next(layer["reason"] for layer in layers if layer["name"] == LAYER)
    assert f"is fastest at {rows} rows: " in reason
