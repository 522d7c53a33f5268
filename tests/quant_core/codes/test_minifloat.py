"""Small floating point codes: torchao's, bit by bit."""

import pytest
import torch

from graphquant.quant_core.codes.minifloat import (
    _kept_table,
    encode,
    largest_value,
    looked_up,
    values_of,
)

LAYOUTS = [(e, bits - 1 - e) for bits in range(3, 9) for e in range(1, bits)]


@pytest.fixture(scope="module")
def values():
    """Gaussian and even values, halves between codes, zeros of both signs, tiny and huge."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e9, -1e9])
    return torch.cat([torch.randn(4000, generator=generator) * 3, torch.arange(-64, 65) / 8, edges])


@pytest.mark.parametrize(("exponent", "mantissa"), LAYOUTS)
def test_codes_and_their_values_are_torchaos(exponent, mantissa, values):
    utils = pytest.importorskip("torchao.prototype.custom_fp_utils")
    codes = encode(values, exponent, mantissa)
    assert torch.equal(codes, utils._f32_to_floatx_unpacked(values.clone(), exponent, mantissa))
    theirs = utils._floatx_unpacked_to_f32(codes, exponent, mantissa)
    assert torch.equal(looked_up(codes, values_of(exponent, mantissa)), theirs)


@pytest.mark.parametrize(("exponent", "mantissa"), LAYOUTS)
def test_every_value_is_its_own_code(exponent, mantissa):
    table = torch.tensor(values_of(exponent, mantissa))
    assert torch.equal(encode(table, exponent, mantissa), torch.arange(len(table)).to(torch.uint8))
    assert table.isfinite().all() and table.max() == largest_value(exponent, mantissa)


def test_the_values_of_e2m1_by_hand():
    assert values_of(2, 1)[:8] == (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    assert encode(torch.tensor([0.25, 0.75, 2.5, 5.0, 7.0, -3.5]), 2, 1).tolist() == [
        *(0, 2, 4, 6, 7, 14)
    ]


def test_a_table_goes_to_a_device_once():
    """A GPU finishes all its work before it takes one."""
    codes, values = torch.zeros(4, dtype=torch.uint8), values_of(2, 1)
    looked_up(codes, values)
    before = _kept_table.cache_info().misses
    assert torch.equal(looked_up(codes, values), torch.zeros(4))
    assert _kept_table.cache_info().misses == before
