"""Plans whose formats look at what reaches each layer."""

import pytest
import torch
from torch import nn

from graphquant.quant_core import observe, plan_component, quantize_component
from graphquant.quant_core.errors import CalibrationError
from graphquant.quant_core.formats import Int8, SvdQuant
from graphquant.quant_core.methods import CALIBRATED
from graphquant.quant_core.planning.calibrated_layers import with_calibration


@pytest.fixture
def model():
    torch.manual_seed(0)
    layers = {name: nn.Linear(128, 128) for name in ("first", "second", "unseen")}
    return nn.ModuleDict(layers).requires_grad_(False)


def calibrated(model, rows=64):
    with observe(model) as seen:
        x = torch.randn(rows, 128)
        model["second"](model["first"](x))
    return seen.calibration


@pytest.mark.parametrize("method", CALIBRATED)
def test_without_a_calibration_the_error_names_the_node_and_the_argument(method, model):
    with pytest.raises(CalibrationError) as caught:
        quantize_component(model, method)
    text = str(caught.value).splitlines()[0]
    assert text.startswith(f"{method} needs rows of the inputs of 3 layers")
    assert "Calibrate Activations" in text and "calibration=" in text and "w4a8" in text
    assert type(model["first"].weight) is nn.Parameter


def test_scales_alone_are_not_enough(model):
    with observe(model, rows=0) as seen:
        model["first"](torch.randn(64, 128))
    with pytest.raises(CalibrationError, match="the calibration has none"):
        quantize_component(model, "svdquant-int4", calibration=seen.calibration)


def test_what_the_calibration_never_saw_is_int8_with_its_bytes(model):
    plan = plan_component(model, "svdquant-nvfp4", rank=8)
    plan = with_calibration(plan, calibrated(model))
    formats = {layer.name: layer.format for layer in plan.layers}
    own = SvdQuant("nvfp4", 8, "nvfp4")
    assert formats == {"first": own, "second": own, "unseen": Int8("per-row")}
    unseen = plan.layers[2]
    assert unseen.reason == "INT8: the calibration has no rows of its inputs"
    assert unseen.bytes_after == Int8("per-row").nbytes((128, 128))


def test_a_few_rows_are_too_few(model):
    plan = with_calibration(plan_component(model, "svdquant-int4", rank=8), calibrated(model, 15))
    assert {layer.reason for layer in plan.quantized} == {
        "INT8: the calibration has only 15 rows of its inputs",
        "INT8: the calibration has no rows of its inputs",
    }


def test_a_calibration_of_other_layers_is_refused(model):
    other = nn.ModuleDict({name: nn.Linear(128, 128) for name in ("x", "y")}).requires_grad_(False)
    with observe(other) as seen:
        other["x"](torch.randn(64, 128))
    with pytest.raises(CalibrationError, match="of another model"):
        with_calibration(plan_component(model, "svdquant-int4", rank=8), seen.calibration)


def test_other_methods_ask_for_nothing(model):
    plan = plan_component(model, "int4")
    assert with_calibration(plan, None) is plan


def test_the_layers_are_rounded_smoothed_and_attached(model):
    calibration = calibrated(model, 400)
    x = torch.randn(50, 128)
    expected = model["first"](x)
    _, stats = quantize_component(model, "svdquant-int4", rank=8, calibration=calibration)
    assert [layer["format"] for layer in stats["layers"]][:2] == [
        "svdquant int4 groups of 64, rotated by 64, rank 8, int4 activations"
    ] * 2
    # Weight-only on a CPU: activations stay as they are.
    error = (model["first"](x) - expected).norm() / expected.norm()
    assert error < 0.1
    assert stats["layers"][0]["rounding"]["output_error"] < 0.2
    assert stats["layers"][2]["rounding"]["note"].startswith("to nearest: the calibration has no")
