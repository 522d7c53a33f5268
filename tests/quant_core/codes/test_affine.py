"""The range of a group: what each algorithm makes of it, and how much is left of the weights."""

import pytest
import torch

from graphquant.quant_core.codes.affine import choose_range, codes_of
from graphquant.quant_core.errors import NonFiniteWeightError


def error(values, levels, algorithm, symmetric=False):
    """Relative L2 of the values that the codes give back."""
    step, zero = choose_range(values, levels, algorithm, symmetric)
    assert torch.equal(step, step.bfloat16().float()) and torch.equal(zero, zero.bfloat16().float())
    codes = codes_of(values, step, zero, levels)
    assert codes.min() >= 0 and codes.max() <= levels and torch.equal(codes, codes.round())
    return ((codes * step + zero - values).norm() / values.norm()).item()


def test_the_extremes_are_the_first_and_the_last_code():
    step, zero = choose_range(torch.tensor([[-1.0, 0.5, 2.75]]), 15, "minmax")
    assert (step.item(), zero.item()) == (0.25, -1.0)
    assert codes_of(torch.tensor([[-1.0, 0.5, 2.75]]), step, zero, 15).tolist() == [[0, 6, 15]]


def test_a_symmetric_range_has_its_zero_in_the_middle_code():
    step, zero = choose_range(torch.tensor([[-1.875, 0.0, 0.5]]), 15, "minmax", symmetric=True)
    assert (step.item(), zero.item()) == (0.25, -2.0)
    assert codes_of(torch.tensor([[0.0]]), step, zero, 15).item() == 8


@pytest.mark.parametrize(("levels", "least_gain"), [(1, 0.78), (3, 0.75), (7, 0.9), (15, 0.97)])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_searched_range_loses_less_than_the_extremes(levels, least_gain, symmetric, normal):
    values = normal(512, 64, std=1.0)
    searched = error(values, levels, "search", symmetric)
    assert searched < least_gain * error(values, levels, "minmax", symmetric)


def test_half_quadratic_lies_between_the_extremes_and_the_search(normal):
    """Gaussian weights, groups of 128, four bits: the figures of docs/architecture.md."""
    errors = [error(normal(1024, 128), 15, name) for name in ("minmax", "hqq", "search")]
    assert errors == pytest.approx([0.0998, 0.0970, 0.0945], abs=0.0008)


@pytest.mark.parametrize("algorithm", ["search", "minmax", "hqq"])
def test_a_constant_group_comes_back_and_zeros_stay_zeros(algorithm):
    values = torch.tensor([[0.5] * 32, [0.0] * 32])
    step, zero = choose_range(values, 15, algorithm)
    assert torch.equal(codes_of(values, step, zero, 15) * step + zero, values)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_refused(value):
    with pytest.raises(NonFiniteWeightError):
        choose_range(torch.tensor([[1.0, value]]), 15, "search")
