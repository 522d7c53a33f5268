"""The table of layers: worst first, the kept at the end, the same in text and JSON."""

import json

import pytest

from graphquant.quant_core.formats import Int8
from graphquant.quant_core.measure.layer_table import LayerError, layer_table
from graphquant.quant_core.measure.relative_error import Error
from graphquant.quant_core.planning.decisions import (
    ALREADY,
    KEEP,
    QUANTIZE,
    LayerPlan,
)


def plan(name, action=QUANTIZE, reason="", fmt=None):
    return LayerPlan(name, "Linear", (64, 32), "bfloat16", action, reason, 4096, 2304, fmt)


SMALL, LARGE = Error(0.01, 1.0), Error(0.1, 0.99)
LAYERS = [
    plan("final", KEEP, "final layer"),
    plan("a", fmt=Int8()),
    plan("b", fmt=Int8()),
    plan("c", ALREADY, "already quantized: ComfyUI TensorWiseINT8Layout"),
]


@pytest.fixture
def table():
    errors = [
        LayerError(LAYERS[1], SMALL),
        LayerError(LAYERS[2], LARGE),
        LayerError(LAYERS[3]),
    ]
    return layer_table(LAYERS, errors, ["a note"])


def test_the_worst_layer_is_first_and_what_was_not_measured_last(table):
    assert [each.layer.name for each in table.quantized] == ["b", "a", "c"]
    assert [layer.name for layer in table.kept] == ["final"]
    assert table.summary() == (
        "3 of 4 layers quantized, 0.0 -> 0.0 MiB; worst weight: b, relative L2 0.1000"
    )


def test_an_output_error_ranks_before_a_weight_error():
    errors = [LayerError(LAYERS[1], SMALL, LARGE), LayerError(LAYERS[2], LARGE, SMALL)]
    table = layer_table(LAYERS[1:3], errors)
    assert [each.layer.name for each in table.quantized] == ["a", "b"]
    assert "worst output: a" in table.summary()


def test_a_known_effect_on_the_latent_ranks_before_any_error_and_has_its_column():
    errors = [
        LayerError(LAYERS[1], LARGE, LARGE, effect=0.003),
        LayerError(LAYERS[2], SMALL, SMALL, effect=0.004),
        LayerError(LAYERS[3], LARGE),
    ]
    table = layer_table(LAYERS, errors)
    assert [each.layer.name for each in table.quantized] == ["b", "a", "c"]
    assert table.summary().endswith("expected change of the final latent 0.0050, most by b, 0.0040")
    rows = [line for line in table.to_markdown().splitlines() if line.startswith("| ")]
    assert rows[0].startswith("| layer | latent L2 | output L2 | weight L2 |")
    assert rows[2].startswith("| b | 0.00400 | 0.0100 | 0.0100 |")
    assert len({row.count("|") for row in rows}) == 1
    values = json.loads(table.to_json())
    assert values["effect"] == pytest.approx(0.005)
    assert [each["effect"] for each in values["quantized"]] == [0.004, 0.003, None]


def test_every_layer_has_a_row_of_text_with_its_figures(table):
    lines = table.to_markdown().splitlines()
    assert "- a note" in lines
    rows = [line for line in lines if line.startswith("| ")]
    assert rows[0] == "| layer | output L2 | weight L2 | MiB | format | reason |"
    assert len({row.count("|") for row in rows}) == 1
    assert rows[2] == "| b | - | 0.1000 | 0.00 -> 0.00 | int8 per-row |  |"
    assert rows[4] == "| c | - | - | 0.00 -> 0.00 | ComfyUI TensorWiseINT8Layout |  |"
    assert rows[5] == "| final | - | - | 0.00 | bfloat16 | final layer |"


def test_json_says_what_the_text_says(table):
    values = json.loads(table.to_json())
    assert [each["name"] for each in values["quantized"]] == ["b", "a", "c"]
    assert values["quantized"][0]["weight"]["sqnr_db"] == pytest.approx(20)
    assert values["quantized"][0]["output"] is None
    assert values["kept"][0]["reason"] == "final layer"
    assert values["notes"] == ["a note"]
