"""FP8 and INT8: the format of each shape, and the reason where it is another."""

import pytest

from graphquant.quant_core.formats import Float8, Int8
from graphquant.quant_core.methods import METHODS


def choose(method, shape, granularity="per-row"):
    return METHODS[method].choose(shape, granularity)


@pytest.mark.parametrize("granularity", ["per-row", "per-tensor"])
@pytest.mark.parametrize("shape", [(256, 512), (1, 3), (24, 64)])
def test_the_weight_only_methods_take_every_shape(granularity, shape):
    assert choose("int8", shape, granularity).format == Int8(granularity)
    assert choose("fp8-weight-only", shape, granularity).format == Float8(granularity=granularity)
    assert choose("int8", shape, granularity).note == ""


@pytest.mark.parametrize("granularity", ["per-row", "per-tensor"])
def test_fp8_dynamic_runs_weight_only_where_k_or_n_is_not_in_sixteens(granularity):
    fits = choose("fp8-dynamic", (32, 48), granularity)
    assert fits.format == Float8(granularity=granularity, activations="float8_e4m3fn")
    assert fits.note == ""
    for shape in ((24, 48), (32, 40)):
        choice = choose("fp8-dynamic", shape, granularity)
        assert choice.format == Float8(granularity=granularity)
        assert choice.note.startswith(f"weight-only: {shape[0]} x {shape[1]} is not in sixteens")


def test_int8_dynamic_quantizes_activations_but_where_k_is_one():
    assert choose("int8-dynamic", (24, 7)).format == Int8(activations="int8")
    choice = choose("int8-dynamic", (24, 1))
    assert choice.format == Int8()
    assert "weight-only" in choice.note and "K = 1" in choice.note
