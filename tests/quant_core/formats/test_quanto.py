"""Beside Quanto's own types: FP8 code by code, the integers by what they lose."""

import pytest
import torch

from graphquant.quant_core import METHODS
from lab.sampling import relative_l2

quanto = pytest.importorskip("optimum.quanto")

SHAPE = (256, 1024)


def rows(weight, name):
    """A weight in Quanto's type of eight bits, a scale a row."""
    kind = getattr(quanto, f"q{name}")
    return quanto.quantize_weight(weight, kind, 0, quanto.AbsmaxOptimizer()(weight, kind, 0))


def groups(weight, name):
    """What Quanto makes of a weight in groups of 128 in a row. Its own dequantize would build a C++
    extension first, to unpack the codes."""
    kind = getattr(quanto, f"q{name}")
    scale, shift = quanto.MaxOptimizer()(weight, kind, 0, 128)
    codes = torch.ops.quanto.quantize_affine(weight, kind.bits, 0, 128, scale, shift)
    return (codes * scale - shift).view(weight.shape)


def ours(weight, method):
    return METHODS[method].choose(SHAPE, "per-row").format.quantize(weight)


def test_fp8_codes_and_scales_are_quanto_s(normal):
    weight = normal(*SHAPE)
    theirs, stored = rows(weight, "float8"), ours(weight, "fp8-weight-only")
    assert torch.equal(theirs._data.view(torch.uint8), stored.qdata.view(torch.uint8))
    assert torch.equal(theirs._scale.flatten(), stored.scale.flatten())


def test_int8_loses_no_more_than_quanto_s(normal):
    weight = normal(*SHAPE)
    lost = relative_l2(rows(weight, "int8").dequantize(), weight)
    assert 0.98 * lost < relative_l2(ours(weight, "int8").dequantize(), weight) <= lost


@pytest.mark.parametrize(("name", "lost"), [("int4", 0.1), ("int2", 0.5)])
def test_small_integers_lose_less_than_quanto_s(name, lost, normal):
    weight = normal(*SHAPE)
    theirs = relative_l2(groups(weight, name), weight)
    assert theirs == pytest.approx(lost, rel=0.02)
    assert relative_l2(ours(weight, name).dequantize(), weight) < 0.96 * theirs
