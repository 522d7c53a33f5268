"""The report of a rounding: a line a way with mean errors, then the exceptions by number."""

from graphquant.quant_core.rounding.outcome import (
    COMPENSATED,
    NEAREST,
    LayerRounding,
    rounding_lines,
)


def compensated(weight, output, nearest, corrected=False):
    return LayerRounding(COMPENSATED, weight, output, nearest, corrected)


def test_errors_are_means_of_the_layers_that_were_measured():
    rounded = {
        "a": compensated(0.2, 0.1, 0.3, corrected=True),
        "b": compensated(0.4, 0.3, 0.5),
        "c": LayerRounding(COMPENSATED),
    }
    assert rounding_lines(rounded) == [
        "rounding: 3 x compensated, output error 0.2000 where plain rounding has 0.4000, "
        "weight error 0.3000",
        "bias corrected by the mean output error: 1 layers",
    ]


def test_exceptions_are_counted_the_most_frequent_first():
    rounded = {name: LayerRounding(NEAREST, note="never called") for name in "ab"}
    rounded |= {"c": LayerRounding(NEAREST, note="too wide"), "d": LayerRounding(NEAREST)}
    assert rounding_lines(rounded) == [
        "rounding: 4 x nearest",
        "rounding: 2 x never called",
        "rounding: 1 x too wide",
    ]


def test_without_rounding_there_is_no_line():
    assert rounding_lines({}) == []


def test_a_layers_outcome_is_plain_values():
    assert LayerRounding(NEAREST, note="x").to_dict() == {
        "way": "nearest",
        "weight_error": None,
        "output_error": None,
        "nearest_error": None,
        "bias_corrected": False,
        "note": "x",
    }
