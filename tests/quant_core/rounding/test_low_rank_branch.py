"""Layers with a low-rank branch, rounded by what reaches them."""

import pytest
import torch

from graphquant.quant_core.calibration import Calibration
from graphquant.quant_core.formats import SvdQuant
from graphquant.quant_core.planning.decisions import LayerPlan
from graphquant.quant_core.rounding import CalibratedRounding
from graphquant.quant_core.rounding.low_rank_branch import smoothing
from lab.sampling import relative_l2

N, K = 96, 256


def correlated(normal, rows, seed):
    """Activations whose columns go together, and of which every fiftieth is large."""
    x = normal(rows, 24, std=1.0, seed=seed) @ normal(24, K, std=0.3, seed=90)
    x += normal(rows, K, std=0.3, seed=seed + 1)
    x[:, ::50] *= 10
    return x


def rounded(normal, residual, rounding="auto", on_progress=None):
    fmt = SvdQuant(residual, 8, residual)
    layer = LayerPlan("it", "Linear", (N, K), "float32", "quantize", "", 0, 0, fmt)
    calibration = Calibration({}, rows={"it": correlated(normal, 800, 10)})
    rounds = CalibratedRounding(calibration, rounding, ["it"], on_progress)
    weight = normal(N, K)
    return rounds(layer, weight), rounds, weight


@pytest.mark.parametrize("residual", ("int4", "nvfp4"))
def test_each_step_lessens_the_error_on_unseen_activations(residual, normal):
    unseen = correlated(normal, 300, 40)
    stored, rounds, weight = rounded(normal, residual)
    nearest, of_nearest, _ = rounded(normal, residual, "nearest")
    exact = unseen @ weight.t()

    def error(of, shift=None):
        return relative_l2(of.format.emulated(unseen, of, shift), exact)

    plain = error(stored.format.quantize(weight))
    smoothed = error(nearest, of_nearest.bias_shifts.get("it"))
    compensated = error(stored, rounds.bias_shifts.get("it"))
    assert compensated < 0.9 * smoothed < 0.9 * 0.8 * plain
    outcome = rounds.outcomes["it"]
    assert outcome.way == "compensated" and of_nearest.outcomes["it"].way == "nearest"
    assert outcome.output_error == pytest.approx(compensated, rel=0.15)
    assert outcome.nearest_error == pytest.approx(plain, rel=0.15)


def test_what_large_activations_are_divided_by_is_large(normal):
    x = correlated(normal, 300, 10)
    factor = smoothing(x, 0.5).float()
    assert factor[::50].min() > factor.median()
    assert factor.log().mean().abs() < 0.01
    assert torch.equal(smoothing(x, 0.0).float(), torch.ones(K))


def test_progress_comes_to_the_cost_of_the_layer_and_may_cancel(normal):
    from graphquant.quant_core.rounding import cost_of

    done = []
    rounded(normal, "int4", on_progress=done.append)
    layer = LayerPlan("it", "Linear", (N, K), "float32", "quantize", "", 0, 0, SvdQuant())
    assert sum(done) == pytest.approx(cost_of(layer), rel=0.01)
    assert len(done) > 5

    def cancel(part):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rounded(normal, "int4", on_progress=cancel)
