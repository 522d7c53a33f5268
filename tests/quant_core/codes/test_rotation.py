"""The rotation spreads what is large over its group, and undoes itself."""

import pytest
import torch

from graphquant.quant_core.codes.rotation import is_size, rotate, rotation_size


@pytest.mark.parametrize("size", [4, 16, 64, 256])
def test_rotating_twice_gives_back_what_was_there(size, normal):
    values = normal(5, 512, std=1.0)
    assert torch.allclose(rotate(rotate(values, size), size), values, atol=1e-6)


@pytest.mark.parametrize("size", [4, 16, 64, 256])
def test_one_value_is_spread_evenly_over_its_group_and_no_other(size):
    values = torch.zeros(1, 2 * size)
    values[0, size + 1] = 1.0
    turned = rotate(values, size)
    assert torch.equal(turned[0, :size], torch.zeros(size))
    assert torch.allclose(turned[0, size:].abs(), torch.full((size,), size**-0.5))


def test_products_do_not_change_where_both_sides_are_rotated(normal):
    x, weight = normal(7, 512, std=1.0), normal(9, 512)
    rotated = rotate(x, 64) @ rotate(weight, 64).T
    assert torch.allclose(rotated, x @ weight.T, atol=1e-5)


def test_the_matrix_is_comfy_kitchens():
    utils = pytest.importorskip("comfy_kitchen.tensor.int8_utils")
    for size in (4, 16, 64, 256):
        assert torch.equal(rotate(torch.eye(size), size), utils._build_hadamard(size))


@pytest.mark.parametrize(
    ("k", "size"), [(3072, 256), (320, 64), (48, 16), (12, 4), (7, None), (1, None), (4, 4)]
)
def test_the_largest_size_that_divides_is_taken(k, size):
    assert rotation_size(k) == size


def test_sizes_are_powers_of_four():
    assert [size for size in range(1, 1100) if is_size(size)] == [4, 16, 64, 256, 1024]
