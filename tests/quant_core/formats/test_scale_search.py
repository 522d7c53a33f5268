"""The least error wins, place by place."""

import torch

from graphquant.quant_core.formats.scale_search import least

NAN = float("nan")


def winners(*errors):
    """Which candidate each place takes."""
    candidates = ((torch.tensor(e), torch.full((len(e),), i)) for i, e in enumerate(errors))
    (chosen,) = least(candidates)
    return chosen.tolist()


def test_every_place_takes_its_own_best():
    assert winners([3.0, 1.0, 2.0], [1.0, 2.0, 2.5], [2.0, 0.5, 1.0]) == [1, 2, 2]


def test_of_equals_the_first_is_taken():
    assert winners([1.0, 0.0], [1.0, 0.0]) == [0, 0]


def test_nan_is_never_better_and_a_first_nan_is_kept():
    assert winners([1.0, NAN], [NAN, 0.5]) == [0, 0]


def test_all_values_of_a_candidate_go_together():
    first = (torch.tensor([2.0]), torch.tensor([1]), torch.tensor([10]))
    second = (torch.tensor([1.0]), torch.tensor([2]), torch.tensor([20]))
    assert [value.item() for value in least([first, second])] == [2, 20]
