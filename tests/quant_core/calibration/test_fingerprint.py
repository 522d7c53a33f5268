"""A fingerprint knows a model in every dtype and quantized, and no other model."""

import pytest
import torch
from torch import nn

from graphquant.quant_core import quantize_component
from graphquant.quant_core.calibration.fingerprint import fingerprint_of, require_same_model
from graphquant.quant_core.errors import CalibrationError, ModuleError


def model(width=64, seed=0):
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Linear(64, width), nn.LayerNorm(width), nn.Linear(width, 64))
    nn.init.normal_(layers[1].weight)
    return layers


def test_a_model_in_fewer_bits_or_quantized_is_the_same_model():
    whole = fingerprint_of(model())
    assert len(whole.values) == 4 * 4  # two biases, and a normalization's weight and bias
    for dtype in (torch.bfloat16, torch.float16):
        assert whole.difference(fingerprint_of(model().to(dtype))) is None
    quantized, _ = quantize_component(model(), "int8", preset=None)
    assert fingerprint_of(quantized) == whole


def renamed():
    return nn.ModuleDict({"inner": model()})


def without_a_bias():
    changed = model()
    changed[0].bias = None
    return changed


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda: model(width=128), "its layers have other names or shapes"),
        (renamed, "its layers have other names or shapes"),
        (without_a_bias, "it has other biases and normalizations"),
        (lambda: model(seed=1), "its biases and normalizations have other values"),
    ],
)
def test_another_model_is_told_apart_and_its_calibration_refused(other, difference):
    made_of = fingerprint_of(model())
    assert made_of.difference(fingerprint_of(other())) == difference
    require_same_model(made_of, model())
    require_same_model(None, other())
    with pytest.raises(CalibrationError, match=f"another model than this one: {difference}"):
        require_same_model(made_of, other())


def test_a_model_without_values_has_no_fingerprint():
    with pytest.raises(ModuleError, match=r"0\.bias is on the meta device"):
        fingerprint_of(model().to("meta"))
