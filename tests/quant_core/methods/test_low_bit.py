"""Few bits: the group of each width, and what has no form for convolutions."""

import pytest

from graphquant.quant_core.formats import Int8, IntN
from graphquant.quant_core.methods import METHODS, Choice


def choose(method, shape, granularity="per-row"):
    return METHODS[method].choose(shape, granularity)


@pytest.mark.parametrize("method", ["int2", "int3", "int5", "int6"])
def test_few_bits_take_groups_of_64_or_32_or_eight_bits(method):
    bits = int(method[3:])
    assert choose(method, (8, 128)).format == IntN(bits, 64)
    assert choose(method, (8, 96)).format == IntN(bits, 32)
    assert choose(method, (8, 48)) == Choice(
        Int8("per-row"), f"INT8: no INT{bits} group size (64, 32) divides K = 48"
    )


@pytest.mark.parametrize("method", ["nf4", "fp4", "fp6", "fp8-block", "mxfp8", "nvfp4"])
def test_the_other_formats_take_matrices_of_any_shape_and_no_kernels(method):
    assert choose(method, (7, 33)).format is not None
    assert choose(method, (8, 8, 3, 3)).format is None
