"""INT4: packing bit by bit, and the error of each way to choose a group's range."""

import pytest
import torch

from graphquant.quant_core.codes.affine import ALGORITHMS
from graphquant.quant_core.formats import Int4
from graphquant.quant_core.formats.int4 import GROUP_SIZES
from lab.sampling import relative_l2


def error_of(fmt, weight):
    return relative_l2(fmt.quantize(weight).dequantize(), weight)


def test_codes_by_hand_low_nibble_first():
    """Two groups of 32: 0..15 twice, step 1 from 0; and -8..7 twice, step 2 from -16."""
    ramp = torch.arange(32) % 16
    weight = torch.cat((ramp.float(), 2.0 * ramp - 16)).unsqueeze(0)
    stored = Int4(32, "minmax").quantize(weight)
    pairs = [0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]
    assert stored.qdata.tolist() == [pairs * 4]
    assert stored.qdata.dtype == torch.uint8
    assert stored.scale.tolist() == [[1.0, 2.0]]
    assert stored.zero_point.tolist() == [[0.0, -16.0]]
    assert torch.equal(stored.dequantize(), weight)


@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize("algorithm", ["minmax", "search"])
def test_a_weight_on_the_grid_survives_bit_by_bit(group_size, algorithm):
    codes = torch.randint(0, 16, (24, 8, group_size), generator=torch.Generator().manual_seed(0))
    codes[..., 0], codes[..., 1] = 0, 15
    step = 2.0 ** torch.arange(-4, 4).view(1, 8, 1)
    weight = (codes * step - 4 * step).reshape(24, -1)
    stored = Int4(group_size, algorithm).quantize(weight)
    assert torch.equal(stored.dequantize(), weight)
    low, high = stored.qdata & 15, stored.qdata >> 4
    assert torch.equal(torch.stack((low, high), -1).view(codes.shape), codes.to(torch.uint8))


def test_search_beats_the_extremes_and_hqq_on_gaussian_weights(normal):
    weight = normal(1024, 1024)
    search, minmax, hqq = (error_of(Int4(128, name), weight) for name in ALGORITHMS)
    assert 0.08 < search <= 0.0950
    assert search < hqq < minmax <= 0.0999


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_smaller_groups_are_finer(algorithm, normal):
    weight = normal(256, 1024)
    errors = [error_of(Int4(size, algorithm), weight) for size in (128, 64, 32)]
    assert errors[0] > 1.05 * errors[1] > 1.05**2 * errors[2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_lose_no_more(dtype, normal):
    assert 0.08 < error_of(Int4(128), normal(512, 1024, dtype=dtype)) <= 0.0955


def test_search_never_does_worse_than_the_extremes_in_any_group(normal):
    weight = normal(64, 512)
    weight[:, ::97] *= 20  # outliers
    errors = [
        (Int4(64, name).quantize(weight).dequantize() - weight).view(64, 8, 64).norm(dim=-1)
        for name in ("search", "minmax")
    ]
    assert (errors[0] <= errors[1]).all()
    assert (errors[0] < errors[1]).float().mean() > 0.2


def test_hqq_spares_a_groups_many_by_letting_go_of_its_few(normal):
    """It lessens the l_0.7 norm of the error, where a square would chase outliers."""
    weight = torch.distributions.StudentT(3.0).sample((256, 512))

    def l07(algorithm):
        result = Int4(64, algorithm).quantize(weight).dequantize()
        return (result - weight).abs().pow(0.7).mean()

    assert l07("hqq") < 0.98 * l07("minmax")


def test_a_group_far_from_zero_keeps_its_offset(normal):
    weight = normal(8, 128) + 3.0
    assert error_of(Int4(128), weight) < 0.001


def test_a_group_of_equal_values_comes_back_within_bfloat16():
    result = Int4(32).quantize(torch.full((2, 64), 0.3)).dequantize()
    assert torch.equal(result, torch.full((2, 64), 0.3).bfloat16().float())


@pytest.mark.parametrize(("group_size", "per_weight"), [(128, 0.53125), (64, 0.5625), (32, 0.625)])
def test_two_codes_share_a_byte(group_size, per_weight):
    assert Int4(group_size).nbytes((3072, 3072)) == 3072 * 3072 * per_weight
