"""Errors summed up piece by piece equal those of the whole."""

import json
import math

import pytest
import torch

from graphquant.quant_core.measure.relative_error import Error, RunningError, error_of


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(96, 128, generator=generator)
    return reference + 0.01 * torch.randn(96, 128, generator=generator), reference


def test_the_figures_are_those_of_their_definitions(pair):
    result, reference = (side.double() for side in pair)
    error = error_of(*pair)
    expected = ((result - reference).norm() / reference.norm()).item()
    assert error.relative_l2 == pytest.approx(expected, rel=1e-5)
    cosine = torch.nn.functional.cosine_similarity(result.flatten(), reference.flatten(), dim=0)
    assert error.cosine == pytest.approx(cosine.item(), abs=1e-6)
    power = 10 * math.log10(reference.square().sum() / (result - reference).square().sum())
    assert error.sqnr == pytest.approx(power, abs=1e-3) == pytest.approx(40, abs=0.2)


def test_rows_added_one_by_one_give_the_error_of_all(pair):
    running = RunningError()
    for result, reference in zip(*pair, strict=True):
        running.add(result, reference)
    assert running.pairs == 96
    assert running.error().relative_l2 == pytest.approx(error_of(*pair).relative_l2, rel=1e-6)


def test_a_tensor_of_several_pieces_is_summed_whole(pair, monkeypatch):
    expected = error_of(*pair)
    monkeypatch.setattr("graphquant.quant_core.measure.relative_error._PIECE", 1000)
    assert error_of(*pair).cosine == pytest.approx(expected.cosine, rel=1e-6)


def test_bfloat16_is_compared_in_float32(pair):
    _, reference = pair
    assert error_of(reference.bfloat16(), reference).relative_l2 == pytest.approx(0.0017, abs=2e-4)


def test_equal_tensors_have_no_error_and_an_infinite_ratio_that_json_can_hold(pair):
    error = error_of(pair[1], pair[1])
    assert (error.relative_l2, error.sqnr) == (0, math.inf)
    assert error.cosine == pytest.approx(1, abs=1e-6)
    assert json.loads(json.dumps(error.to_dict(), allow_nan=False))["sqnr_db"] is None


def test_zeros_against_zeros_are_right_and_anything_against_zeros_is_all_wrong():
    zeros, ones = torch.zeros(4), torch.ones(4)
    assert error_of(zeros, zeros) == Error(0.0, 1.0)
    assert error_of(ones, zeros).relative_l2 == math.inf
    assert error_of(zeros, ones) == Error(1.0, 0.0)


def test_without_values_there_is_no_error_figure():
    assert RunningError().error() is None


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"Shapes differ, \(2, 3\) and \(3, 2\)"):
        error_of(torch.zeros(2, 3), torch.zeros(3, 2))
