"""A format's grid: the values it can store once its scales are chosen."""

import pytest
import torch

from graphquant.quant_core.formats import MXFP8, NVFP4, Code4, Int4, StaticFloat8
from lab.formats import EVERY_FORMAT

# Of a weight with a branch the residual is rounded, on the grid of a format that is in the list.
WITH_SCALES = [fmt for fmt in EVERY_FORMAT if not fmt.needs_calibration]
WITH_SCALES += [StaticFloat8(input_scale=1.0)]
every_format = pytest.mark.parametrize("fmt", WITH_SCALES, ids=str)


@pytest.fixture
def weight(normal):
    return normal(24, 256)


@every_format
def test_a_column_s_nearest_values_are_what_the_stored_weight_dequantizes_to(fmt, weight):
    """Compensated rounding asks column by column, under the scales that are stored."""
    own = fmt.in_own_basis(weight)
    grid = fmt.grid(own)
    width = own.shape[1] // grid.step.shape[1]
    rows = slice(5, 20)
    nearest = torch.stack(
        [grid.nearest(own[rows, k].clone(), k // width, rows) for k in range(own.shape[1])], dim=1
    )
    stored = fmt.in_own_basis(grid.store(own).dequantize(torch.float32))
    # Ties between two values may fall either way.
    assert ((nearest - stored[rows]).abs() > 1e-6).float().mean() < 0.002


@every_format
def test_what_lies_on_the_grid_is_stored_as_it_is(fmt, weight):
    own = fmt.in_own_basis(weight)
    grid = fmt.grid(own)
    on_grid = fmt.in_own_basis(grid.store(own).dequantize(torch.float32))
    again = fmt.in_own_basis(grid.store(on_grid.clone()).dequantize(torch.float32))
    assert torch.allclose(again, on_grid, atol=1e-6)


@every_format
def test_a_stored_grid_is_a_whole_weight_of_the_format(fmt, weight):
    stored = fmt.grid(fmt.in_own_basis(weight.bfloat16())).store(fmt.in_own_basis(weight))
    expected = fmt.parts((24, 256))
    assert {name: (part.dtype, tuple(part.shape)) for name, part in stored.tensors.items()} == (
        expected
    )
    assert (stored.shape, stored.format) == ((24, 256), fmt)


@every_format
def test_importance_moves_no_scale_of_a_weight_of_zeros_and_keeps_it_zero(fmt):
    grid = fmt.grid(torch.zeros(16, 256), torch.linspace(0.1, 5.0, 256))
    assert not grid.store(torch.zeros(16, 256)).dequantize(torch.float32).any()


def searched():
    return [fmt for fmt in EVERY_FORMAT if fmt.kind in ("int4", "int_n", "nvfp4", "code4")]


@pytest.mark.parametrize("fmt", searched(), ids=str)
def test_searched_scales_lessen_the_error_of_the_columns_that_count(fmt, weight):
    importance = torch.full((256,), 0.01)
    importance[::8] = 100.0

    def error(grid):
        lost = grid.store(weight).dequantize(torch.float32) - weight
        return (lost.square() * importance).sum().item()

    assert error(fmt.grid(weight, importance)) < 0.97 * error(fmt.grid(weight))


def test_groups_that_do_not_divide_k_have_no_grid(weight):
    narrow = [fmt.grid(weight[:, :100]) for fmt in (NVFP4(), MXFP8(), Int4(64), Code4())]
    assert narrow == [None] * 4
