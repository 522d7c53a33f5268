"""Codes are packed without gaps, and come back."""

import pytest
import torch

from graphquant.quant_core.codes.bits import pack, packed_bytes, unpack


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("shape", [(3, 8), (2, 64), (4, 13), (1,), (2, 3, 40)])
def test_what_is_packed_comes_back(bits, shape):
    codes = torch.randint(0, 2**bits, shape, dtype=torch.uint8)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (*shape[:-1], packed_bytes(shape[-1], bits))
    assert torch.equal(unpack(packed, bits, shape[-1]), codes)


def test_eight_codes_make_one_number_from_its_lowest_bits():
    assert pack(torch.tensor([1, 0, 1, 1, 0, 0, 0, 1], dtype=torch.uint8), 1).tolist() == [0x8D]
    codes = torch.tensor([1, 2, 3, 4, 5, 6, 7, 0], dtype=torch.uint8)
    assert pack(codes, 4).tolist() == [0x21, 0x43, 0x65, 0x07]
    number = sum(code << (3 * place) for place, code in enumerate(codes.tolist()))
    assert pack(codes, 3).tolist() == list(number.to_bytes(3, "little"))


def test_torchaos_own_packing_takes_as_many_bytes():
    assert [packed_bytes(64, bits) for bits in range(1, 8)] == [8 * bits for bits in range(1, 8)]
