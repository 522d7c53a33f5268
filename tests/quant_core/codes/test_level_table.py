"""A table of bins finds the level that a search among the midpoints finds."""

import pytest
import torch

from graphquant.quant_core.codes.level_table import LevelTable

LEVELS = (-1.0, -0.4, -0.05, 0.1, 0.3, 0.9)


@pytest.mark.parametrize("span", [1.0, 1.25])
def test_the_level_found_is_the_nearest_or_as_near_within_a_bin(span):
    values = torch.randn(4, 500).mul_(0.6)
    table = LevelTable(LEVELS, span, 1024, values.device)
    found, levels = table.snap(values), torch.tensor(LEVELS)
    least = (values.unsqueeze(-1) - levels).abs().amin(-1)
    assert ((found - values).abs() - least).max() <= 1.01 * span / 1024
    assert torch.equal(found, levels[table.places(values).long()])
    assert (found - values).abs().eq(least).float().mean() > 0.99


def test_values_beyond_the_span_take_the_outermost_level():
    table = LevelTable(LEVELS, 1.0, 64, torch.device("cpu"))
    assert table.snap(torch.tensor([-9.0, 1e30])).tolist() == pytest.approx([-1.0, 0.9])


def test_values_are_only_read():
    values = torch.linspace(-1, 1, 9)
    LevelTable(LEVELS, 1.0, 64, values.device).snap(values)
    assert torch.equal(values, torch.linspace(-1, 1, 9))
