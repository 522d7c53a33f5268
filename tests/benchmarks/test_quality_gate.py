"""A fast part of the quality gate: two seeds, the smaller size, the LoRA on, all five methods."""

from dataclasses import replace

import pytest

from benchmarks.quality_gate import BOUNDS, Score, markdown, measure
from lab.miniature import SIZE


@pytest.fixture(scope="module")
def scores(comfy):
    found = measure(BOUNDS, sizes=(SIZE,), loras=(True,), seeds=range(2))
    return {score.method: score for score in found}


def test_bf16_draws_in_italics_what_was_asked_for(scores):
    assert scores["bf16"].right >= 12 / 16
    assert scores["bf16"].style > 0.5
    assert (scores["bf16"].agreement, scores["bf16"].call_error) == (1, 0)


@pytest.mark.parametrize("method", BOUNDS)
def test_each_method_is_within_its_bounds_and_did_something(scores, method):
    assert scores[method].passes, scores[method]
    assert scores[method].call_error > 1e-4


def test_int4_costs_more_than_eight_bits(scores):
    eight_bits = [scores[method].call_error for method in BOUNDS if method != "int4"]
    assert scores["int4"].call_error > 1.5 * max(eight_bits)


def test_a_score_outside_any_one_bound_does_not_pass():
    good = Score("int8", 64, True, 1.0, 0.99, 0.95, -0.01, 0.01)
    assert good.passes
    assert not replace(good, agreement=0.97).passes
    assert not replace(good, style_change=-0.03).passes
    assert not replace(good, call_error=0.021).passes


def test_the_table_shows_every_score_and_every_bound():
    lines = markdown([Score("int8", 64, True, 1.0, 0.96875, 0.95, -0.01, 0.0123)]).splitlines()
    assert "| int8 | 64 | yes | 100.0% | 96.9% | 0.9500 | -0.0100 | 0.0123 |" in lines
    assert sum(line.startswith("| int4 |") for line in lines) == 1
