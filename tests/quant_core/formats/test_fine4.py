"""4-bit codes whose scales have a sign."""

import pytest
import torch

from graphquant.quant_core.formats import Code4, Fine4, Int4
from graphquant.quant_core.formats.fine4 import LEVELS
from lab.sampling import relative_l2


def student(rows, columns, degrees=5, seed=4):
    generator = torch.Generator().manual_seed(seed)
    chi = torch.randn(degrees, rows, columns, generator=generator).square().mean(0).sqrt()
    return torch.randn(rows, columns, generator=generator) / chi


@pytest.mark.parametrize("size, bits", [(32, 4.25), (16, 4.5)])
def test_it_loses_less_than_what_has_as_many_bits(size, bits, normal):
    fmt, weight = Fine4(size), normal(256, 1024)
    assert 8 * fmt.nbytes((256, 1024)) / weight.numel() == pytest.approx(bits, abs=1e-3)
    others = [Int4(128)] if size == 32 else [Int4(64), Code4()]
    for each in (weight, student(256, 1024)):
        error = relative_l2(fmt.quantize(each).dequantize(), each)
        assert all(error < 0.83 * relative_l2(o.quantize(each).dequantize(), each) for o in others)


def test_the_scale_turns_the_levels_to_the_side_of_the_largest_weight():
    """A weight and its negative: every level has its mirror image."""
    weight = torch.tensor(LEVELS).repeat(2).expand(4, 32) * 0.3
    for each in (weight, -weight):
        stored = Fine4(32).quantize(each)
        assert relative_l2(stored.dequantize(), each) < 0.03  # of the scale's rounding to E4M3
        assert (stored.scale.float() < 0).all() == (each is not weight)


def test_a_transposed_store_and_bfloat16_change_nothing(normal):
    weight = normal(64, 128).bfloat16()
    one, other = Fine4().quantize(weight), Fine4().quantize(weight.float())
    assert all(
        torch.equal(a.float(), b.float())
        for a, b in zip(one.tensors.values(), other.tensors.values(), strict=True)
    )
    assert (one.dtype, other.dtype) == (torch.bfloat16, torch.float32)
