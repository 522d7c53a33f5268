"""The quality gate: 64 pictures, fourteen methods, two sizes, without and with the LoRA."""

import json
from dataclasses import replace
from functools import cache

import pytest

from benchmarks.quality_gate import CORE, RESULTS, STYLE, Score, markdown, measure
from lab.miniature import LARGE, SIZE

# Each size is measured by one process, where several share the tests.
GROUPS = {size: pytest.mark.xdist_group(f"quality gate {size}") for size in (SIZE, LARGE)}
CASES = [pytest.param(size, lora, marks=GROUPS[size]) for size in GROUPS for lora in (False, True)]


@pytest.fixture(scope="module")
def scores(comfy):
    """scores(method, size, lora): all methods of a size are measured when it is first asked for."""

    @cache
    def measured(size):
        return {(score.method, score.lora): score for score in measure(CORE, sizes=(size,))}

    return lambda method, size, lora: measured(size)[method, lora]


@pytest.mark.parametrize(("size", "lora"), CASES)
def test_bf16_draws_what_was_asked_for(scores, size, lora):
    bf16 = scores("bf16", size, lora)
    assert bf16.right >= (0.85 if lora else 0.95)
    assert (bf16.agreement, bf16.call_error, bf16.flips) == (1, 0, ())
    assert bf16.style > 0.7 if lora else abs(bf16.style) < 0.15


@pytest.mark.parametrize(("size", "lora"), CASES)
@pytest.mark.parametrize("method", CORE)
def test_each_method_is_within_its_bounds_and_did_something(scores, method, size, lora):
    score = scores(method, size, lora)
    assert score.passes, score
    assert score.call_error > 1e-4


@pytest.fixture(scope="module")
def recorded():
    rows = json.loads((RESULTS / "quality_gate.json").read_text(encoding="utf-8"))
    return {(row["method"], row["size"], row["lora"]): row for row in rows}


@pytest.mark.parametrize(("size", "lora"), CASES)
@pytest.mark.parametrize("method", CORE)
def test_call_errors_are_within_three_percent_of_their_record(scores, recorded, method, size, lora):
    """A bound tells what may be, the record what is. Single layers: tests/nodes/test_layer_gate."""
    assert scores(method, size, lora).call_error == pytest.approx(
        recorded[method, size, lora]["call_error"], rel=0.03
    )


@GROUPS[SIZE]
@pytest.mark.parametrize("method", CORE)
def test_the_final_latent_of_64_pictures_is_near_its_record(scores, recorded, method):
    """The headline. Single steps of rounding differ between CPUs, and a latent adds them up."""
    expected = recorded[method, SIZE, False]["latent_error"]
    assert scores(method, SIZE, False).latent_error == pytest.approx(expected, rel=0.1)
    assert scores(method, SIZE, True).latent_error is None


@GROUPS[SIZE]
def test_fewer_bits_cost_more_of_the_final_latent(scores):
    ranked = ("int8", "int6", "int5", "w4a8", "int4")
    errors = [scores(method, SIZE, False).latent_error for method in ranked]
    assert errors == sorted(errors)
    assert errors[0] > 1e-3


@GROUPS[SIZE]
def test_int4_costs_more_than_eight_bits(scores):
    eight_bits = [
        scores(method, SIZE, True).call_error
        for method, each in CORE.items()
        if each.agreement > 0.95
    ]
    assert scores("int4", SIZE, True).call_error > 1.5 * max(eight_bits)


def test_a_score_outside_any_one_bound_does_not_pass():
    good = Score("int8", 64, True, 1.0, 0.99, 0.85, -0.01, 0.009)
    assert good.passes
    assert not replace(good, agreement=0.97).passes
    assert not replace(good, style_change=-0.02).passes
    assert replace(good, style_change=-0.02, lora=False).passes
    assert replace(good, agreement=0.97).verdict == "outside"
    assert replace(good, method="bf16").verdict == "-"
    assert not replace(good, call_error=0.011).passes


def test_the_bounds_are_those_of_the_project():
    assert {method: each.agreement for method, each in CORE.items()} == {
        "fp8-dynamic": 0.98,
        "fp8-weight-only": 0.98,
        "int8": 0.98,
        "int8-dynamic": 0.98,
        "int4": 0.95,
        "llm.int8": 0.98,
        "fp8-block": 0.98,
        "mxfp8": 0.98,
        "int6": 0.95,
        "int5": 0.95,
        "int4-dynamic": 0.95,
        "int8-convrot": 0.98,
        "w6a8": 0.95,
        "w4a8": 0.95,
    }
    assert STYLE == 0.02


def test_the_table_shows_every_score_and_every_bound():
    flips = ("a 4, read 4 in bf16 (52% sure), now 9",)
    lines = markdown([Score("int8", 64, True, 1.0, 0.96875, 0.95, -0.01, 0.0123, flips)])
    lines = lines.splitlines()
    assert (
        "| int8 | 64 | yes | 100.0% | 96.9% | 0.9500 | -0.0100 | 0.0123 | outside "
        "| a 4, read 4 in bf16 (52% sure), now 9 |"
    ) in lines
    assert sum(line.startswith("| int4 |") for line in lines) == 1


def test_the_headline_is_a_table_of_its_own_least_error_first():
    scores = [
        Score(m, 64, False, 1, 1, 0, 0, 0, latent_error=e)
        for m, e in (("int4", 0.07), ("int8", 0.005))
    ]
    lines = markdown(scores, ["torch 1"]).splitlines()
    assert "- torch 1" in lines
    first = lines.index("| int8 | 0.0050 |")
    assert lines[first + 1] == "| int4 | 0.0700 |"
