"""The expected change of the final latent: measured effects, scaled by what each format errs."""

import pytest

from graphquant.quant_core.calibration import Fingerprint
from graphquant.quant_core.fit import (
    Sensitivity,
    effect_lines,
    expected_effects,
    format_error,
    in_all,
)
from graphquant.quant_core.formats import Int4, Int8
from graphquant.quant_core.planning.decisions import QUANTIZE, LayerPlan
from graphquant.quant_core.rounding import LayerRounding


def layer(name, fmt):
    return LayerPlan(name, "Linear", (64, 1024), "bfloat16", QUANTIZE, "", 4096, 2304, fmt)


@pytest.fixture
def sensitivity():
    effects = {"a": 0.02, "b": 0.01, "c": 0.0}
    return Sensitivity("flux1", Fingerprint("x", (1.0,)), "int4-symmetric", effects)


def test_an_effect_grows_with_the_error_of_the_format(sensitivity):
    layers = [layer("a", Int8()), layer("b", Int4()), layer("not measured", Int4())]
    found = expected_effects(sensitivity, layers)
    assert list(found) == ["a", "b"]
    probe = 0.02 / sensitivity.per_error(["a"])["a"]
    assert found["a"] == pytest.approx(0.02 * format_error(Int8()) / probe)
    assert found["b"] == pytest.approx(0.01 * format_error(Int4()) / probe)
    assert 0.05 < found["a"] / 0.02 < 0.12


def test_what_a_calibration_gained_lessens_it(sensitivity):
    rounding = {"a": LayerRounding("compensated", 0.1, 0.02, 0.05), "b": LayerRounding("nearest")}
    layers = [layer("a", Int4()), layer("b", Int4())]
    plain, rounded = (expected_effects(sensitivity, layers, r) for r in ({}, rounding))
    assert rounded["a"] == pytest.approx(0.4 * plain["a"])
    assert rounded["b"] == plain["b"]


def test_layers_add_up_in_squares_and_the_largest_are_told():
    effects = {"a": 0.03, "b": 0.04, "c": 0.0, "d": 0.001}
    assert in_all(effects.values()) == pytest.approx(0.05001, abs=1e-5)
    assert effect_lines(effects) == [
        "expected change of the final latent: 0.0500 in all; "
        "most of it by b 0.0400, a 0.0300, d 0.0010"
    ]
    assert effect_lines({}) == []
