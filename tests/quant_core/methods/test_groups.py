"""The group of a layer is the largest that divides K, or it is INT8 with the reason."""

import pytest

from graphquant.quant_core.formats import Int4, Int8
from graphquant.quant_core.methods import METHODS, Choice


def choose(method, shape, granularity="per-row"):
    return METHODS[method].choose(shape, granularity)


@pytest.mark.parametrize(("columns", "group"), [(3072, 128), (320, 64), (96, 32), (128, 128)])
def test_int4_takes_the_largest_group_that_divides_k(columns, group):
    assert choose("int4", (8, columns)).format == Int4(group)


@pytest.mark.parametrize("columns", [48, 1, 1000, 2520])
def test_int4_is_int8_where_no_group_divides_k_and_says_so(columns):
    note = f"INT8: no INT4 group size (128, 64, 32) divides K = {columns}"
    assert choose("int4", (8, columns)) == Choice(Int8("per-row"), note)
    assert choose("int4", (8, 8, 3, 3)) == Choice(None, "INT4 groups are for Linear layers")
