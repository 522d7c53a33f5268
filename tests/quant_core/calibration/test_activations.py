"""Running statistics of activations."""

import pytest
import torch

from graphquant.quant_core.calibration import ActivationStatistics, LayerActivations
from graphquant.quant_core.errors import CalibrationError


def test_the_maximum_and_the_rows_are_the_largest_of_all_calls():
    statistics = ActivationStatistics()
    statistics.add(torch.tensor([[1.0, -3.0]]))
    statistics.add(torch.zeros(2, 5, 2))
    assert statistics.result() == LayerActivations(maximum=3.0, rows=10, calls=2)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_a_percentile_is_that_of_all_calls_together(percentile):
    x = torch.randn(4, 1000, 50, generator=torch.Generator().manual_seed(0))
    statistics = ActivationStatistics(percentile)
    for part in x:
        statistics.add(part)
    expected = x.abs().flatten().quantile(percentile / 100).item()
    assert statistics.result().maximum == pytest.approx(expected, rel=2**-7)


def test_a_call_without_tokens_is_not_counted():
    statistics = ActivationStatistics(99.0)
    statistics.add(torch.zeros(2, 0, 4))
    assert statistics.calls == 0


def test_activations_that_are_nan_are_refused_with_the_remedy():
    with pytest.raises(CalibrationError, match=r"NaN or infinite activations\. Check the model"):
        ActivationStatistics().add(torch.tensor([[1.0, float("nan")]]))


@pytest.mark.parametrize("percentile", [0.0, 49.9, 100.1])
def test_a_percentile_that_makes_no_sense_is_refused(percentile):
    with pytest.raises(CalibrationError, match=f"percentile is {percentile:g}: choose 50 to 100"):
        ActivationStatistics(percentile)
