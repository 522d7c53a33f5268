"""Recipes: the chosen widths, saved and applied to a sibling."""

import pytest
import torch

from graphquant.quant_core import Fit, FitError, Recipe, plan_component, quantize_component
from graphquant.quant_core.detect import module_bytes
from graphquant.quant_core.fit import with_fit


@pytest.fixture
def plan(model, sensitivity):
    whole = module_bytes(model)
    return with_fit(plan_component(model, "fit"), Fit(whole * 2 // 3, sensitivity), whole).plan


def test_a_saved_recipe_gives_a_sibling_the_same_widths(model, plan, tmp_path):
    Recipe.of(plan).save(tmp_path / "recipe.json")
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data.normal_()
    recipe = Recipe.load(tmp_path / "recipe.json")
    again = recipe.apply(plan_component(model, "fit"))
    assert [la.format for la in again.layers] == [la.format for la in plan.layers]
    assert [la.bytes_after for la in again.layers] == [la.bytes_after for la in plan.layers]
    assert any(la.format is None for la in again.layers)


def test_quantizing_by_a_recipe_needs_no_size(model, plan):
    _, stats = quantize_component(model, "fit", fit=Recipe.of(plan))
    assert [la["format"] for la in stats["layers"]] == [
        None if la.format is None else str(la.format) for la in plan.layers
    ]


def test_a_recipe_of_another_model_is_refused(plan):
    other = torch.nn.Sequential(torch.nn.Linear(64, 64))
    with pytest.raises(FitError, match="is of another model: it does not know 0"):
        Recipe.of(plan).apply(plan_component(other, "fit"))


def test_a_model_with_fewer_or_other_layers_is_refused(model, plan):
    recipe = Recipe.of(plan)
    model.blocks = model.blocks[:5]
    with pytest.raises(FitError, match=r"blocks\.5\.qkv is not here"):
        recipe.apply(plan_component(model, "fit"))
    model.blocks[0].qkv = torch.nn.Linear(128, 128)
    with pytest.raises(FitError, match=r"blocks\.0\.qkv is \(128, 128\) here and \(384, 128\)"):
        recipe.apply(plan_component(model, "fit"))


def test_a_layer_that_the_user_excludes_stays(model, plan):
    again = Recipe.of(plan).apply(plan_component(model, "fit", exclude="blocks.0"))
    assert again.layers[0].reason == "excluded by blocks.0"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"graphquant_recipe": 9}', '{"graphquant_recipe": 1, "layers": {"a": 3}}'],
)
def test_what_is_not_a_recipe_is_refused(text):
    with pytest.raises(FitError, match="This is not a recipe"):
        Recipe.from_json(text)
