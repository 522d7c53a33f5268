"""Whether a model's convolutions are quantized too."""

import pytest
from torch import nn

from graphquant.quant_core.errors import UnknownNameError, UnsupportedMethodError
from graphquant.quant_core.planning.convolutions import with_convolutions

LARGE = nn.Sequential(nn.Conv2d(64, 64, 3), nn.Linear(64, 64))  # 36864 of 41088 weights
SMALL = nn.Sequential(nn.Conv2d(16, 16, 3), nn.Linear(128, 128))  # 2304 of 18832


@pytest.mark.parametrize(
    ("model", "choice", "method", "taken"),
    [
        (LARGE, "auto", "int8", True),
        (LARGE, "auto", "8bit", True),
        (LARGE, "auto", "fp8-weight-only", False),
        (LARGE, "auto", "int8-dynamic", False),
        (SMALL, "auto", "int8", False),
        (SMALL, "quantize", "fp8-weight-only", True),
        (LARGE, "keep", "int8", False),
        (LARGE, "auto", "fit", False),
        (nn.Sequential(), "auto", "int8", False),
    ],
)
def test_auto_takes_them_in_int8_where_they_are_a_large_part(model, choice, method, taken):
    found, notes = with_convolutions(model, choice, method)
    assert found is taken
    assert len(notes) == (choice == "auto" and taken)


def test_the_note_says_how_large_a_part_and_how_to_keep_them():
    _, (note,) = with_convolutions(LARGE, "auto", "int8")
    assert "89%" in note or "90%" in note
    assert "keep leaves them" in note


def test_bad_choices_are_named_with_the_remedy():
    with pytest.raises(UnknownNameError, match="convolutions"):
        with_convolutions(LARGE, "all", "int8")
    with pytest.raises(UnsupportedMethodError, match="Set convolutions to auto or keep"):
        with_convolutions(LARGE, "quantize", "fit")
