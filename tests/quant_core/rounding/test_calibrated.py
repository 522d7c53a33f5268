"""Calibrated rounding of a whole model: errors, biases, and what cannot be calibrated."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from graphquant.quant_core import observe, quantize_component
from graphquant.quant_core.calibration import Calibration
from graphquant.quant_core.errors import CalibrationError, UnknownNameError

METHODS = (
    "int2",
    "int3",
    "int4",
    "int5",
    "nf4",
    "fp4",
    "nvfp4",
    "mxfp8",
    "int8",
    "fp6",
    "fp8-block",
)


def tokens(seed, count=64):
    """Inputs with a mean and with outlier channels, as a model's own activations have."""
    generator = torch.Generator().manual_seed(seed)
    gain = torch.ones(64)
    gain[::9] = 5.0
    return torch.randn(count, 20, 64, generator=generator) * gain + 0.5


@pytest.fixture
def calibration(transformer):
    with observe(transformer) as seen:
        transformer(tokens(1))
    return seen.calibration


@pytest.fixture
def quantized(transformer, calibration):
    """``quantized(method, **options)`` -> error of the model's output on unseen tokens, stats."""
    unseen = tokens(2, 8)
    expected = transformer(unseen)

    def run(method, **options):
        model, stats = quantize_component(copy.deepcopy(transformer), method, **options)
        return ((model(unseen) - expected).norm() / expected.norm()).item(), stats

    run.calibration = calibration
    return run


@pytest.mark.parametrize("method", METHODS)
def test_every_method_errs_by_less_when_calibrated(quantized, method):
    plain, _ = quantized(method)
    error, stats = quantized(method, calibration=quantized.calibration)
    assert error < 0.8 * plain
    ways = [layer["rounding"]["way"] for layer in stats["layers"] if layer["rounding"]]
    assert ways.count("compensated") >= 8


def test_the_report_has_weight_and_output_error_of_every_layer_beside_each_other(quantized):
    _, stats = quantized("int4", calibration=quantized.calibration)
    layers = [layer for layer in stats["layers"] if layer["action"] == "quantize"]
    for layer in layers:
        rounding = layer["rounding"]
        assert 0.05 < rounding["weight_error"] < 0.4
        assert rounding["output_error"] <= rounding["nearest_error"]
        assert rounding["bias_corrected"]
    assert len(layers) == 11


def test_bias_correction_alone_lessens_the_error_and_rounds_no_weight_otherwise(
    transformer, calibration, quantized
):
    plain, _ = quantized("int4")
    corrected, _ = quantized("int4", calibration=calibration, rounding="nearest")
    assert corrected < 0.95 * plain
    one, _ = quantize_component(copy.deepcopy(transformer), "int4")
    other, _ = quantize_component(
        copy.deepcopy(transformer), "int4", calibration=calibration, rounding="nearest"
    )
    assert torch.equal(one.img_in.weight.dequantize(), other.img_in.weight.dequantize())
    assert not torch.equal(one.img_in.bias, other.img_in.bias)


def test_a_shifted_bias_makes_the_mean_output_right(transformer, calibration):
    model, _ = quantize_component(copy.deepcopy(transformer), "int2", calibration=calibration)
    x = calibration.rows["img_in"].float()
    seen = torch.ones(len(x), dtype=torch.bool)
    seen[15::16] = False
    lost = (model.img_in(x) - transformer.img_in(x))[seen]
    assert lost.mean(0).norm() < 0.01 * lost.norm(dim=1).mean()


def test_layers_without_a_bias_are_left_without(calibration, transformer):
    transformer.img_in.bias = None
    with observe(transformer) as seen:
        transformer(tokens(1))
    model, stats = quantize_component(transformer, "int4", calibration=seen.calibration)
    assert model.img_in.bias is None
    assert stats["layers"][0]["rounding"]["bias_corrected"] is False


@pytest.fixture
def one_layer():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32)).requires_grad_(False)


def rounding_of(model, x, method="int4", **options):
    with observe(model) as seen:
        model(x)
    _, stats = quantize_component(model, method, calibration=seen.calibration, **options)
    return stats["layers"][0]["rounding"], model


def test_dead_columns_and_repeated_rows_are_rounded_finite(one_layer):
    """Of rank two, and most columns never anything but zero: the damping alone makes it regular."""
    x = torch.zeros(40, 64)
    x[:20, :5] = 2.0
    x[20:, 3:9] = -1.0
    rounding, model = rounding_of(one_layer, x, rounding="compensated")
    assert rounding["way"] == "compensated"
    assert torch.isfinite(model[0].weight.dequantize()).all()
    assert rounding["output_error"] < 0.02


@pytest.mark.parametrize(
    "x, fact",
    [
        (torch.ones(15, 64), "fewer than 16 rows"),
        (torch.zeros(40, 64), "its inputs were zero"),
    ],
)
def test_too_little_to_go_by_is_rounding_to_nearest_with_a_note(one_layer, x, fact):
    before = one_layer[0].bias.clone()
    rounding, model = rounding_of(one_layer, x)
    assert rounding["way"] == "nearest" and fact in rounding["note"]
    assert torch.equal(model[0].bias, before)


def test_a_singular_hessian_is_rounding_to_nearest_with_a_note(one_layer, monkeypatch):
    from graphquant.quant_core.rounding import inputs

    monkeypatch.setattr(inputs, "_DAMP", 0.0)
    monkeypatch.setattr(inputs, "_DAMP_OF_FEW", 0.0)
    rounding, _ = rounding_of(one_layer, torch.ones(40, 64))
    assert rounding["way"] == "nearest" and "no Cholesky factor" in rounding["note"]


def test_layers_that_were_never_called_say_so(one_layer):
    rows = {"other": torch.randn(40, 64).bfloat16()}
    _, stats = quantize_component(one_layer, "int4", calibration=Calibration({}, rows=rows))
    assert "no rows of its inputs" in stats["layers"][0]["rounding"]["note"]


def test_a_calibration_of_another_model_is_refused_in_words_and_touches_nothing(
    transformer, calibration
):
    other = copy.deepcopy(transformer)
    for parameter in other.parameters():
        parameter.normal_(generator=torch.Generator().manual_seed(9))
    before = [parameter.clone() for parameter in other.parameters()]
    with pytest.raises(CalibrationError, match="of another model than this one: its biases and"):
        quantize_component(other, "int4", calibration=calibration)
    with pytest.raises(CalibrationError, match="its layers have other names or shapes"):
        quantize_component(nn.Sequential(nn.Linear(64, 64)), "int4", calibration=calibration)
    assert all(map(torch.equal, before, other.parameters()))


def test_a_quantized_copy_calibrates_for_the_original(transformer, quantized):
    copied, _ = quantize_component(copy.deepcopy(transformer), "int8")
    with observe(copied) as seen:
        copied(tokens(1))
    error, _ = quantized("int4", calibration=seen.calibration)
    own, _ = quantized("int4", calibration=quantized.calibration)
    assert error == pytest.approx(own, rel=0.15)


def test_compensated_without_rows_is_an_error_and_an_unknown_rounding_too(transformer):
    with pytest.raises(CalibrationError, match="there is no calibration"):
        quantize_component(transformer, "int4", rounding="compensated")
    with observe(transformer, rows=0) as seen:
        transformer(tokens(1))
    with pytest.raises(CalibrationError, match="the calibration has no rows"):
        quantize_component(
            transformer, "int4", rounding="compensated", calibration=seen.calibration
        )
    with pytest.raises(UnknownNameError, match="Unknown rounding 'best'"):
        quantize_component(transformer, "int4", rounding="best")


def test_layers_that_share_inputs_are_prepared_once(monkeypatch, transformer, calibration):
    from graphquant.quant_core.rounding import calibrated

    made = []
    original = calibrated.Preparation.of
    monkeypatch.setattr(
        calibrated.Preparation, "of", lambda *a: made.append(1) or original(*a), raising=True
    )
    _, stats = quantize_component(transformer, "int4", calibration=calibration)
    # norm1.linear is kept; attn and it are given the same rows.
    assert len(made) == stats["quantized_layers"]


def test_it_works_in_inference_mode_and_outside(transformer, mode):
    with observe(transformer) as seen:
        transformer(tokens(1))
    with torch.inference_mode(not mode):
        transformer(tokens(2))
    _, stats = quantize_component(transformer, "int4", calibration=seen.calibration)
    assert stats["quantized_layers"] == 11


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("place", [3, 15])  # of the rows rounded by, and of those held out
def test_rows_that_no_error_can_be_told_from_are_rounding_to_nearest(
    transformer, calibration, value, place
):
    rows = {name: each.clone() for name, each in calibration.rows.items()}
    for each in rows.values():
        each[place] = value
    wrong = replace(calibration, rows=rows)
    for rounding in ("auto", "nearest", "compensated"):
        model = copy.deepcopy(transformer)
        _, stats = quantize_component(model, "int4", calibration=wrong, rounding=rounding)
        made = [layer["rounding"] for layer in stats["layers"] if layer["action"] == "quantize"]
        assert all(each["note"].startswith("to nearest: its inputs hold NaN") for each in made)
        assert json.loads(json.dumps(made, allow_nan=False)) == made
