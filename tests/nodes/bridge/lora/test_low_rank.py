"""A change of low rank is found exactly; any other is not mistaken for one."""

import pytest
import torch

from graphquant.nodes.bridge.lora.low_rank import MAX_RANK, low_rank_factors

pytestmark = pytest.mark.usefixtures("comfy")


def product(rank, n=512, k=384, scale=1.0):
    generator = torch.Generator().manual_seed(rank)
    up = torch.randn(n, rank, generator=generator)
    return scale * up @ torch.randn(rank, k, generator=generator)


@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize("rank", [1, 4, 32, 64])
def test_a_low_rank_change_comes_back_as_its_factors(rank, scale):
    delta = product(rank, scale=scale)
    up, down = low_rank_factors(delta)
    assert up.shape == (512, rank)
    assert down.shape == (rank, 384)
    assert (up @ down - delta).norm() < 1e-4 * delta.norm()


def test_float32_noise_of_a_weight_does_not_hide_a_change_a_thousand_times_smaller():
    weight = product(384) / 384
    small = product(4) * 1e-3 / 2
    up, down = low_rank_factors((weight + small) - weight)
    assert (up @ down - small).norm() < 1e-3 * small.norm()


def test_a_full_rank_change_has_no_factors():
    assert low_rank_factors(product(384)) is None
    assert low_rank_factors(product(MAX_RANK + 40)) is None


def test_no_change_has_no_factors():
    assert low_rank_factors(torch.zeros(64, 64)) is None


def test_the_users_random_numbers_are_not_consumed():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    low_rank_factors(product(4))
    assert torch.equal(torch.rand(3), expected)
