"""The verdict over seeds, and the table that it stands in."""

import json
import math
from dataclasses import replace

import pytest

from graphquant.quant_core.measure.comparison import (
    LEVELS,
    CallError,
    Comparison,
    Likeness,
    SeedResult,
)
from graphquant.quant_core.measure.relative_error import Error

CALLS = (CallError(1.0, Error(0.01, 0.9999)), CallError(0.5, Error(0.03, 0.999)))
GOOD = SeedResult(7, CALLS, Error(0.05, 0.999), Likeness(31.0, 2.5, 0.97))


def test_a_seed_within_all_thresholds_passes_the_strictest_level():
    assert all(GOOD.failures(level) == [] for level in LEVELS.values())
    comparison = Comparison((GOOD, replace(GOOD, seed=8)), "strict")
    assert comparison.passes
    assert comparison.summary() == "strict: pass; latent relative L2 0.0500 at most"


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        ({"latent": Error(0.081, 0.999)}, "latent L2 0.081, bound 0.08"),
        ({"latent": Error(0.05, 0.994)}, "latent cosine 0.994, bound 0.995"),
        ({"latent": Error(math.nan, 0.999)}, "latent L2 nan, bound 0.08"),
        ({"pictures": Likeness(29.9, 2.5, 0.97)}, "PSNR 29.9, bound 30"),
        ({"pictures": Likeness(31.0, 3.1, 0.97)}, "MAE 3.1, bound 3"),
        ({"pictures": Likeness(31.0, 2.5, 0.97, lpips=0.16)}, "LPIPS 0.16, bound 0.15"),
    ],
)
def test_each_threshold_fails_by_itself_and_is_named(change, failure):
    bad = replace(GOOD, **change)
    assert bad.failures(LEVELS["strict"]) == [failure]
    comparison = Comparison((GOOD, bad), "strict")
    assert not comparison.passes
    assert "strict: fail, 1 of 2 seeds" in comparison.to_markdown()
    assert failure in comparison.to_markdown()


def test_looser_levels_are_looser():
    bad = replace(GOOD, pictures=Likeness(22.0, 8.0, 0.8))
    assert [bool(bad.failures(level)) for level in LEVELS.values()] == [False, True, True]


def test_calls_are_averaged_over_the_seeds_one_by_one():
    other = replace(GOOD, calls=(CallError(1.0, Error(0.03, 0.9997)), CALLS[1]))
    first, second = Comparison((GOOD, other), "good").mean_call_errors()
    assert first == pytest.approx((1.0, 0.02, 0.9998))
    assert second == pytest.approx((0.5, 0.03, 0.999))


def test_runs_of_unequal_length_and_runs_without_calls_still_make_a_table():
    short, none = replace(GOOD, calls=CALLS[:1]), replace(GOOD, calls=())
    assert len(Comparison((GOOD, short), "good").mean_call_errors()) == 1
    assert "| 7 | - | 0.0500 |" in Comparison((none,), "good").to_markdown()


def test_text_and_json_tell_the_same_and_json_holds_no_infinity():
    same = replace(GOOD, latent=Error(0.0, 1.0), pictures=Likeness(math.inf, 0.0, 1.0))
    comparison = Comparison((GOOD, same), "good", ("a note",))
    values = json.loads(comparison.to_json())
    assert values["passes"] is True
    assert values["seeds"][0]["calls"][1]["relative_l2"] == 0.03
    assert values["seeds"][1]["pictures"]["psnr"] is None
    assert values["thresholds"]["psnr"] == 25
    lines = comparison.to_markdown().splitlines()
    assert "- a note" in lines
    assert "| 7 | 0.0200 | 0.0500 | 0.99900 | 31.0 | 2.50 | 0.9700 | - | - | pass |" in lines
    assert "| 2 | 0.5 | 0.0300 | 0.99900 |" in lines


def test_without_pictures_the_latents_alone_decide():
    bare = replace(GOOD, pictures=None)
    assert Comparison((bare,), "strict").passes
    assert "| 7 | 0.0200 | 0.0500 | 0.99900 | - | - | - | - | - | pass |" in (
        Comparison((bare,), "strict").to_markdown()
    )
