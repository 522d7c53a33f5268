"""The chart: a bar as long as its figure says, and a limit on how many are drawn."""

import pytest
import torch

from graphquant.nodes.shared.bar_chart import MOST_BARS, Bar, bar_chart

RED = (1.0, 0.0, 0.0)


def red_pixels(image):
    """How many pixels of each row of the IMAGE are of the bars' colour."""
    return (image[0] == torch.tensor(RED)).all(-1).sum(1)


def chart(*lengths):
    return bar_chart("title", [Bar("layer", length, "note", "#ff0000") for length in lengths])


def test_bars_are_as_long_as_their_figures_from_the_top_down():
    image = chart(4.0, 2.0, 1.0)
    assert image.dtype == torch.float32 and image.shape[0] == 1 and image.shape[3] == 3
    widths = torch.unique_consecutive(red_pixels(image))
    longest, middle, shortest = (int(width) for width in widths if width > 0)
    assert middle == pytest.approx(longest / 2, abs=2)
    assert shortest == pytest.approx(longest / 4, abs=2)


def test_a_figure_of_zero_is_still_a_visible_bar():
    assert (red_pixels(chart(1.0, 0.0)) > 0).sum() == 2 * (red_pixels(chart(1.0)) > 0).sum()
    assert red_pixels(chart(0.0, 0.0)).max() in (1, 2)


def test_only_the_first_bars_are_drawn_and_the_rest_is_counted():
    full, over = chart(*[1.0] * MOST_BARS), chart(*[1.0] * (MOST_BARS + 100))
    assert over.shape[1] - full.shape[1] == 20  # the line that counts the others
    assert (red_pixels(over) > 0).sum() == (red_pixels(full) > 0).sum()


def test_no_bar_at_all_is_a_chart_with_a_title():
    assert chart().shape[1] > 20
