"""The least error wins, place by place."""

import torch

from graphquant.quant_core.codes.scale_search import best_scale, least, reciprocal

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


def whole(values):
    return values.round().clamp(-7, 7)


def test_the_best_scale_is_the_one_of_least_squared_error_of_each_block():
    blocks = torch.randn(3, 5, 16)
    scales = [blocks.abs().amax(-1) / steps for steps in (5.0, 7.0, 8.0)]
    best = best_scale(blocks, scales, whole)

    def error(scale):
        return (whole(blocks / scale.unsqueeze(-1)) * scale.unsqueeze(-1) - blocks).square().sum(-1)

    errors = torch.stack([error(scale) for scale in scales])
    assert torch.allclose(error(best), errors.amin(0), rtol=1e-4)
    assert len(errors.argmin(0).unique()) > 1


def test_weights_and_a_unit_count():
    blocks = torch.randn(40, 16)
    scales = [blocks.abs().amax(-1) / steps for steps in (5.0, 7.0, 8.0)]
    last = torch.tensor([0.0] * 15 + [1.0])
    assert not torch.equal(
        best_scale(blocks, scales, whole, weights=last), best_scale(blocks, scales, whole)
    )
    in_units = best_scale(blocks * 4, scales, whole, unit=torch.tensor(4.0))
    assert torch.equal(in_units, best_scale(blocks, scales, whole))


def test_a_scale_of_zero_is_taken_only_where_there_is_no_other():
    blocks, one = torch.ones(1, 4) * 0.25, torch.ones(1)
    assert best_scale(blocks, [one, 0 * one], whole) == 1
    assert best_scale(0 * blocks, [0 * one], whole) == 0


def test_a_reciprocal_is_finite():
    steps = torch.tensor([0.0, -0.5, 4.0, 1e-40, -1e-40])
    assert reciprocal(steps)[:3].tolist() == [0.0, -2.0, 0.25]
    assert reciprocal(steps).isfinite().all()
