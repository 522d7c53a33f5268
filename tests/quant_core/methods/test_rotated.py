"""Rotated methods take the largest rotation that divides K, and say where it is another."""

import pytest

from graphquant.quant_core.formats import Int8, Int8ConvRot
from graphquant.quant_core.formats.rotated_groups import rotated_groups
from graphquant.quant_core.formats.rotation import SIZES
from graphquant.quant_core.methods import METHODS, Choice

ROTATED = ("int8-convrot", "w4a8", "w6a8")


def choose(method, shape):
    return METHODS[method].choose(shape, "per-row")


@pytest.mark.parametrize("k", [3072, 256, 64])
def test_each_method_has_its_format_with_the_largest_rotation(k):
    size = next(size for size in SIZES if k % size == 0)
    assert choose("int8-convrot", (8, k)).format == Int8ConvRot(size, "int8")
    assert choose("w4a8", (8, k)).format == rotated_groups(4, size)
    assert choose("w6a8", (8, k)).format == rotated_groups(6, size)
    note = "" if size == SIZES[0] else f"rotated by {size}: K = {k}"
    assert {choose(method, (8, k)).note for method in ROTATED} == {note}


@pytest.mark.parametrize("method", ROTATED)
def test_where_no_rotation_divides_k_it_is_plain_int8_with_the_reason(method):
    choice = choose(method, (8, 33))
    assert choice.format == Int8("per-row", "int8")
    assert choice.note.startswith("plain INT8: no rotation") and choice.note.endswith("K = 33")
    assert choose(method, (8, 1)).format == Int8("per-row")


@pytest.mark.parametrize("method", ROTATED)
def test_a_convolution_stays_with_the_reason(method):
    choice = choose(method, (8, 8, 3, 3))
    assert choice == Choice(None, choice.note) and choice.note.endswith("is for Linear layers")
