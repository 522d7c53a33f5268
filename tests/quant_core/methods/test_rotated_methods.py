"""Which rotation a layer is given, and what it is where none goes."""

import pytest

from graphquant.quant_core.formats import Int8, Int8ConvRot
from graphquant.quant_core.formats.rotated_groups import rotated_groups
from graphquant.quant_core.methods import METHODS, Choice, resolve_method

ROTATED = ("int8-convrot", "w4a8", "w6a8")


def choose(method, k, n=32):
    return METHODS[method].choose((n, k), "per-row")


def test_256_is_taken_where_it_divides_and_nothing_is_said():
    assert choose("int8-convrot", 3072) == Choice(Int8ConvRot(256, "int8"))
    assert choose("w4a8", 3072) == Choice(rotated_groups(4))
    assert choose("w6a8", 3072) == Choice(rotated_groups(6))


@pytest.mark.parametrize(("k", "size"), [(320, 64), (96, 16), (64, 64), (1088, 64)])
@pytest.mark.parametrize("method", ROTATED)
def test_a_smaller_power_of_four_is_said(method, k, size):
    choice = choose(method, k)
    assert choice.format.rotation == size
    assert choice.note == f"rotated by {size}: K = {k}"


@pytest.mark.parametrize("method", ROTATED)
def test_where_none_divides_the_layer_is_plain_int8_and_says_so(method):
    choice = choose(method, 33)
    assert choice.format == Int8("per-row", "int8")
    assert choice.note == "plain INT8: no rotation (256, 64, 16, 4) divides K = 33"
    assert choose(method, 1).format == Int8("per-row")


@pytest.mark.parametrize(("method", "k"), [("w4a8", 12), ("w6a8", 48), ("w6a8", 20)])
def test_where_codes_do_not_pack_the_layer_is_rotated_int8_and_says_so(method, k):
    choice = choose(method, k)
    assert isinstance(choice.format, Int8ConvRot) and "rotated INT8" in choice.note


@pytest.mark.parametrize("method", ROTATED)
def test_a_convolution_is_kept_with_the_reason(method):
    choice = METHODS[method].choose((8, 8, 3, 3), "per-row")
    assert choice.format is None and "Linear layers" in choice.note


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("int8_convrot", "int8-convrot"),
        ("convrot", "int8-convrot"),
        ("asym_w4a8_int8", "w4a8"),
        ("w4a8_int8", "w4a8"),
        ("w6a8_int8", "w6a8"),
    ],
)
def test_names_of_others_resolve(name, method):
    assert resolve_method(name) == method
