"""A static plan takes its scales from a calibration that fits."""

import pytest
import torch

from graphquant.quant_core import quantize_component
from graphquant.quant_core.calibration import Calibration, LayerActivations
from graphquant.quant_core.errors import CalibrationError


@pytest.fixture
def model():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(64, 32), torch.nn.Linear(32, 16), torch.nn.Linear(16, 9)]
    return torch.nn.Sequential(*layers).requires_grad_(False)


def seen(maximum):
    return LayerActivations(maximum, rows=8, calls=1)


def test_static_scales_are_the_calibrated_maxima_over_448(model):
    calibration = Calibration({"0": seen(44.8), "1": seen(0.0), "2": seen(1.0)})
    quantize_component(model, "fp8-static", calibration=calibration)
    weights = [layer.weight.data.quantized_weight() for layer in (model[0], model[1])]
    assert weights[0].input_scale.item() == pytest.approx(0.1)
    assert 0 < weights[1].input_scale.item() < 1e-12  # nothing but zeros was seen: no division by 0


def test_a_layer_never_called_or_not_in_sixteens_computes_in_full_precision(model):
    _, stats = quantize_component(model, "float8sq", calibration=Calibration({"0": seen(1.0)}))
    reasons = [layer["reason"] for layer in stats["layers"]]
    assert reasons[0] == ""
    assert reasons[1] == "weight-only: the calibration run never called it"
    assert reasons[2] == "weight-only: 9 x 16 is not in sixteens, which FP8 matmuls need"
    assert stats["layers"][1]["format"] == "float8_e4m3fn per-tensor"


@pytest.mark.parametrize(
    "calibration, fact",
    [
        (None, "fp8-static needs the scales of the activations of 2 layers"),
        (Calibration({"other": seen(1.0)}), "The calibration is of another model: none of its 1"),
    ],
)
def test_static_without_fitting_scales_is_an_error_and_touches_nothing(model, calibration, fact):
    before = [layer.weight for layer in model]
    with pytest.raises(CalibrationError, match=fact):
        quantize_component(model, "fp8-static", calibration=calibration)
    assert all(layer.weight is weight for layer, weight in zip(model, before, strict=True))
