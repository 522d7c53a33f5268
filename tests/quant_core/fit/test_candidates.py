"""The widths to choose among: none is beaten by another in both bytes and error."""

from itertools import pairwise

import pytest

from graphquant.quant_core.fit.candidates import STOCK_WIDTHS, WIDTHS, format_error, formats_of
from graphquant.quant_core.storage import stock_marker

SHAPE = (1024, 1024)


@pytest.mark.parametrize("widths", [WIDTHS, STOCK_WIDTHS], ids=["all", "stock"])
def test_wider_is_larger_and_errs_less(widths):
    formats = [fmt for _, fmt in formats_of(SHAPE, widths)]
    assert len(formats) == len(widths)
    for narrow, wide in pairwise(sorted(formats, key=lambda fmt: fmt.nbytes(SHAPE))):
        assert wide.nbytes(SHAPE) > narrow.nbytes(SHAPE)
        assert format_error(wide) < format_error(narrow)


def test_stock_widths_are_comfyui_s():
    assert all(stock_marker(fmt) for _, fmt in formats_of(SHAPE, STOCK_WIDTHS))


@pytest.mark.parametrize("shape", [(64, 72), (64, 50), (3, 1), (48, 96)])
def test_odd_shapes_have_formats_each_once(shape):
    formats = [fmt for _, fmt in formats_of(shape, WIDTHS)]
    assert len(formats) == len(set(formats)) >= 1


def test_a_layer_that_stays_has_no_error():
    assert format_error(None) == 0
