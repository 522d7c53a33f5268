"""The table of coverage agrees with the shares that the tests of the presets bound."""

import pytest

from benchmarks.coverage import markdown, measure
from lab.architectures import TREES
from lab.architectures.expected import EXPECTED


@pytest.mark.parametrize("name", ["flux1_dev", "z_image", "omnigen2"])
def test_shares_and_sizes_are_those_of_the_model(comfy, name):
    row = measure(name)
    assert row.weights == pytest.approx(EXPECTED[name][0], abs=0.0006)
    assert row.preset == (TREES[name].preset if name in TREES else "generic")
    saved = 1 - row.gib["int8"] / row.gib["bf16"]
    assert saved == pytest.approx(row.share / 2, rel=0.01)


def test_int4_weighs_less_than_int8_also_where_no_group_divides_a_layer(comfy):
    flux, omnigen = measure("flux1_dev").gib, measure("omnigen2").gib
    assert flux["int4"] < 0.55 * flux["int8"]
    assert omnigen["int4"] < 0.9 * omnigen["int8"]  # its width of 2520 has no group: INT8 there


def test_the_table_has_a_row_an_architecture(comfy):
    lines = markdown([measure("flux1_dev")]).splitlines()
    assert lines[-1].startswith("| flux1_dev | flux1 | 304 of 314 | 99.5% | 99.4% |")
