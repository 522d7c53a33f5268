"""docs/presets.md is made of the data as they are now, and diffusers has the names on it."""

import dataclasses
import json

import pytest
import torch

from benchmarks.coverage import measure
from graphquant.quant_core.patterns import matches
from graphquant.quant_core.presets import PRESETS, Raised
from lab import presets_page
from lab.diffusers_names import NAMES


def test_the_page_is_what_the_data_make_of_it():
    written = presets_page.PAGE.read_text(encoding="utf-8")
    assert written == presets_page.page(), "stale: run python -m lab.presets_page"


def test_what_is_raised_at_six_bits_stands_in_its_own_column(monkeypatch):
    rules = (Raised(("late",), "someone", bits=7.0), Raised(("later",), "another"))
    changed = dataclasses.replace(PRESETS["flux1"], raised=rules)
    monkeypatch.setitem(PRESETS, "flux1", changed)
    (row,) = [line for line in presets_page.page().splitlines() if line.startswith("| `flux1` | F")]
    assert "| `late` | `late`, `later` |" in row
    assert row.endswith("In INT8: someone. In INT8: another |")


@pytest.mark.parametrize("name", ["pixart_sigma", "wan22_5b", "sd15"])
def test_the_sizes_are_those_of_todays_plans(comfy, name):
    kept = {row["name"]: row for row in json.loads(presets_page.SIZES.read_text())}
    found = dataclasses.asdict(measure(name))
    assert kept[name]["gib"] == pytest.approx(found["gib"], rel=1e-6), "stale: benchmarks.coverage"
    assert kept[name]["layers"] == list(found["layers"])


def test_convolutions_count_where_quantize_model_takes_them(comfy):
    sd15, sdxl = measure("sd15"), measure("sdxl")
    assert sd15.gib["int8"] < 0.56 * sd15.gib["bf16"] and sd15.share > 0.9
    assert sdxl.gib["int8"] > 0.56 * sdxl.gib["bf16"] and sdxl.share < 0.9


@pytest.mark.parametrize("preset", NAMES)
def test_every_named_pattern_is_the_presets_own(preset):
    rules = PRESETS[preset]
    own = {*rules.keep, *rules.only, *(each for rule in rules.raised for each in rule.layers)}
    assert set(NAMES[preset].patterns) <= own


@pytest.mark.parametrize("preset", NAMES)
def test_diffusers_has_every_name(preset):
    diffusers = pytest.importorskip("diffusers")
    names = NAMES[preset]
    modules = set()
    for kind, options in names.classes.items():
        with torch.device("meta"):
            model = getattr(diffusers, kind)(**options)
        modules |= {name for name, _ in model.named_modules()}
    told = [pattern for patterns in names.patterns.values() for pattern in patterns]
    assert [each for each in told if not any(matches(each, name) for name in modules)] == []
