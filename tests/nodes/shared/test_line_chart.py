"""The chart of a curve: where its marks are, and sizes at their limits."""

import pytest
import torch

from graphquant.nodes.shared.line_chart import Mark, line_chart

RED = torch.tensor([0xD1, 0x49, 0x5B]) / 255


def centre(chart, colour):
    """(x, y) of the middle of all pixels of ``colour``."""
    rows, columns = torch.where((chart[0] - colour).abs().amax(-1) < 0.02)
    return columns.float().mean().item(), rows.float().mean().item()


def chart_with(x, y):
    curve = [(0.0, 1.0), (5.0, 0.4), (10.0, 0.0)]
    return line_chart("title", ("GiB", "error"), curve, [Mark(x, y, "fit", chosen=True)])


def test_the_chosen_mark_lies_where_its_values_are():
    low, high = centre(chart_with(2.0, 0.25), RED), centre(chart_with(8.0, 0.75), RED)
    assert high[0] - low[0] == pytest.approx(0.6 * (960 - 80 - 150), abs=3)
    assert low[1] - high[1] == pytest.approx(0.5 * (540 - 48 - 56), abs=3)


@pytest.mark.parametrize("curve", [[(1.0, 0.0)], [(1.0, 2.0), (1.0, 2.0)]])
def test_one_point_or_no_error_is_drawn(curve):
    chart = line_chart("", ("x", "y"), curve, [])
    assert chart.shape == (1, 540, 960, 3) and torch.isfinite(chart).all()
