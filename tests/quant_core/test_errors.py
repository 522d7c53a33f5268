"""Errors are one kind, named without a path, and open with the fact."""

import pytest

from graphquant.quant_core import QuantConfig, errors
from graphquant.quant_core.errors import (
    CalibrationError,
    ConfigError,
    QuantizationError,
    UnknownNameError,
)
from graphquant.quant_core.formats import StaticFloat8
from graphquant.quant_core.planning.plan import plan_component
from graphquant.quant_core.planning.static_scales import with_static_scales

REFUSALS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, QuantizationError)
]


@pytest.mark.parametrize("kind", REFUSALS[1:], ids=lambda kind: kind.__name__)
def test_every_refusal_is_a_value_error_that_is_shown_by_a_short_name(kind):
    """ComfyUI shows the class with its module: here a path of the user's disk."""
    assert len(REFUSALS) > 8
    assert issubclass(kind, ValueError) and kind.__module__ == "graphquant"


def test_a_missing_torchao_is_an_import_error():
    assert issubclass(errors.TorchAOError, ImportError)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("int9", "Unknown method 'int9'. Did you mean int8 or int4? Valid: int8, int4."),
        ("INT8", "Unknown method 'INT8'. Did you mean int8 or int4? Valid: int8, int4."),
        ("xyz", "Unknown method 'xyz'. Valid: int8, int4."),
        (8, "Unknown method 8. Valid: int8, int4."),
        ("8bits", "Unknown method '8bits'. Did you mean 8bit? Valid: int8, int4."),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_and_all_that_are_valid(name, text):
    assert str(UnknownNameError("method", name, ["int8", "int4"], aliases=["8bit"])) == text


def test_a_config_error_knows_where_it_is():
    error = ConfigError("method is 3.", ("quantization", "method"), at_key=True)
    assert (error.path, error.at_key) == (("quantization", "method"), True)
    assert str(error) == "method is 3." and ConfigError("x").path == ()


def test_an_unknown_name_where_none_is_valid_says_so():
    assert str(UnknownNameError("option of int8wo", "size", ())).endswith("It takes none.")


def test_a_shorthand_without_options_does_not_offer_the_method_none():
    values = {"quant_method": "torchao", "quant_type": "int8wo", "group_size": 32}
    with pytest.raises(ConfigError) as error:
        QuantConfig.from_dict(values)
    assert "It takes none." in str(error.value) and "Valid: none" not in str(error.value)


def test_a_missing_calibration_is_told_for_graphs_and_for_python(normal, transformer):
    told = r"Connect Calibrate Activations \(in Python: pass calibration=\)"
    with pytest.raises(CalibrationError, match=told):
        with_static_scales(plan_component(transformer, "fp8-static"), None)
    with pytest.raises(CalibrationError, match=told):
        StaticFloat8().quantize(normal(16, 16))
