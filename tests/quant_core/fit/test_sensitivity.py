"""Sensitivities as files: the same again, and refused in words."""

import json

import pytest

from graphquant.quant_core import FitError, Sensitivity
from graphquant.quant_core.fit import architecture_hash


def test_it_comes_back_from_its_file(sensitivity, tmp_path, model):
    sensitivity.save(tmp_path / "deep" / "toy.json")
    again = Sensitivity.load(tmp_path / "deep" / "toy.json")
    assert again.effects == pytest.approx(sensitivity.effects)
    assert again.model.difference(sensitivity.model) is None
    assert again.model.layers == architecture_hash(model)
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["toy.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"effects": {"a": "much"}},
        {"effects": {"a": -1.0}},
        {"effects": {"a": None}},
        {"effects": {"a": True}},
        {"effects": {"a": float("inf")}},
        {"effects": {"a": float("nan")}},
        {"effects": []},
        {"values": None},
        {"layers": 3},
        {"probe": "int99"},
        {"probe": ["int4"]},
        {"graphquant_sensitivity": 2},
        {"sampling": 5},
    ],
    ids=str,
)
def test_a_file_with_another_content_is_refused(sensitivity, change):
    values = json.loads(sensitivity.to_json()) | change
    with pytest.raises(FitError):
        Sensitivity.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "3", '{"graphquant_recipe": 1}'])
def test_what_is_not_a_sensitivity_file_is_refused_by_name(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(FitError, match=r"x\.json: This is not a sensitivity file"):
        Sensitivity.load(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FitError, match="Can't read"):
        Sensitivity.load(tmp_path / "none.json")


def test_effects_that_are_not_finite_are_refused(sensitivity):
    with pytest.raises(FitError, match="The effect of a is nan"):
        Sensitivity("toy", sensitivity.model, "int4", {"a": float("nan")})
