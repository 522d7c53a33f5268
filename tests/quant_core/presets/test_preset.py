"""Presets by name: each is found, says its source, and gives reasons."""

import pytest

from graphquant.quant_core.planning.filters import LayerFilter
from graphquant.quant_core.presets import ENCODER_PRESETS, PRESETS, get_preset


def test_a_preset_is_found_by_its_name_in_either_table():
    assert get_preset("flux1") is PRESETS["flux1"]
    assert get_preset("t5") is ENCODER_PRESETS["t5"]


def test_an_unknown_preset_is_an_error_that_names_the_nearest():
    with pytest.raises(ValueError, match=r"preset 'flux'.*Did you mean flux[12]"):
        get_preset("flux")


def test_names_are_snake_case_and_belong_to_one_table():
    names = [*PRESETS, *ENCODER_PRESETS]
    assert len(names) == len(set(names))
    assert all(name.isidentifier() and name == name.lower() for name in names)
    assert "generic" not in names


def test_every_preset_says_where_it_comes_from():
    assert all(p.title and p.source for p in (PRESETS | ENCODER_PRESETS).values())


def test_reasons_name_the_preset_and_the_pattern():
    reason = LayerFilter("transformer", get_preset("flux1")).reason_to_keep("final_layer.linear")
    assert "flux1" in reason and "final_layer" in reason
