"""Integers of few bits: what torchao's lose, or less, and truly packed, which torchao's are not."""

import pytest
import torch
from torchao.quantization import MappingType
from torchao.quantization.quantize_.workflows import IntxUnpackedToInt8Tensor

from graphquant.quant_core.formats import Int4, IntN
from lab.sampling import relative_l2

CASES = [(1, False), *((bits, symmetric) for bits in range(2, 8) for symmetric in (False, True))]


@pytest.mark.parametrize(("bits", "symmetric"), CASES)
def test_the_error_is_torchaos_or_less(bits, symmetric, normal):
    weight = normal(256, 512)
    theirs = IntxUnpackedToInt8Tensor.from_hp(
        weight,
        (1, 64),
        getattr(torch, f"int{bits}"),
        mapping_type=MappingType.SYMMETRIC if symmetric else MappingType.ASYMMETRIC,
    )
    for algorithm, share in (("minmax", 1.03), ("search", 1.0))[bits == 1 :]:
        ours = IntN(bits, 64, symmetric, algorithm).quantize(weight)
        assert relative_l2(ours.dequantize(), weight) <= share * relative_l2(
            theirs.dequantize(), weight
        )


def test_four_affine_bits_are_int4_code_by_code(normal):
    weight = normal(32, 256)
    ours, int4 = IntN(4, 64).quantize(weight), Int4(64).quantize(weight)
    for part in ("qdata", "scale", "zero_point"):
        assert torch.equal(getattr(ours, part), getattr(int4, part))
    assert torch.equal(ours.dequantize(), int4.dequantize())


@pytest.mark.parametrize("bits", range(1, 8))
def test_as_many_values_as_there_are_codes(bits, normal):
    weight = IntN(bits, 128).quantize(normal(8, 128, std=1.0)).dequantize()
    assert all(len(row.unique()) <= 2**bits for row in weight)
    assert len(weight[0].unique()) > 2 ** (bits - 1)


@pytest.mark.parametrize("bits", range(2, 8))
def test_symmetric_codes_hold_zero_and_no_zero_point(bits, normal):
    weight = normal(8, 128)
    weight[:, ::2] = 0
    stored = IntN(bits, 64, symmetric=True).quantize(weight)
    assert stored.zero_point is None
    assert torch.equal(stored.dequantize()[:, ::2], weight[:, ::2])


@pytest.mark.parametrize("algorithm", ["search", "minmax", "hqq"])
def test_a_range_may_be_found_by_each_algorithm(algorithm, normal):
    weight = normal(64, 512)
    error = relative_l2(IntN(2, 64, algorithm=algorithm).quantize(weight).dequantize(), weight)
    assert error == pytest.approx(
        {"search": 0.333, "minmax": 0.450, "hqq": 0.427}[algorithm], rel=0.03
    )
