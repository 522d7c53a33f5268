"""Rounding a column corrects the errors of the columns before it."""

import pytest
import torch

from graphquant.quant_core.codes.rotation import rotate
from graphquant.quant_core.formats import NVFP4, Int4, Int8, IntN
from graphquant.quant_core.rounding import compensate
from graphquant.quant_core.rounding.compensate import compensated, feedback_of


def inputs(rows=600, k=128, seed=3):
    """Rows whose columns resemble each other, as activations do."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(k, k, generator=generator) * 0.15 + torch.eye(k)
    return torch.randn(rows, k, generator=generator) @ mixing


def hessian(x):
    h = x.t() @ x / len(x)
    h.diagonal().add_(0.01 * h.diagonal().mean())
    return h


def textbook(weight, h, grid, order):
    """GPTQ as published: float64, a column at a time, with the inverse Hessian's factor."""
    n, k = weight.shape
    width = k // grid.step.shape[1]
    w, h = weight[:, order].double(), h[order][:, order].double()
    u = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
    out = torch.empty_like(w)
    for i, column in enumerate(order.tolist()):
        out[:, i] = grid.nearest(w[:, i].float(), column // width, slice(0, n)).double()
        error = (w[:, i] - out[:, i]) / u[i, i]
        w[:, i + 1 :] -= error[:, None] * u[None, i, i + 1 :]
    return out[:, torch.argsort(order)].float()


@pytest.mark.parametrize("fmt", [Int4(32), IntN(3, 64), NVFP4(), Int8()], ids=str)
def test_it_is_gptq_in_one_factor(fmt, normal):
    """All but the few values that lie between two codes to within float32."""
    weight, h = normal(40, 128), hessian(inputs())
    grid = fmt.grid(weight, h.diagonal())
    feedback = feedback_of(h)
    expected = textbook(weight, h, grid, feedback.order)
    found = compensated(weight, grid, feedback)
    assert ((found - expected).abs() < 1e-6).float().mean() > 0.98
    errors = [((each - weight) @ h * (each - weight)).sum().item() for each in (found, expected)]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)


def test_blocks_of_rows_and_columns_change_nothing(normal, monkeypatch):
    weight, h = normal(40, 128), hessian(inputs())
    grid, feedback = Int4(32).grid(weight), feedback_of(h)
    whole = compensated(weight, grid, feedback)
    for rows, block, run in ((7, 128, 16), (4096, 48, 5), (4096, 1, 1), (9, 37, 37)):
        monkeypatch.setattr(compensate, "_ROWS", rows)
        monkeypatch.setattr(compensate, "_BLOCK", block)
        monkeypatch.setattr(compensate, "_RUN", run)
        assert (compensated(weight, grid, feedback) - whole).abs().max() < 0.05
        assert ((compensated(weight, grid, feedback) - whole).abs() < 1e-6).float().mean() > 0.98


def test_the_output_error_falls_and_the_weight_error_rises(normal):
    weight, h, unseen = normal(64, 128), hessian(inputs()), inputs(seed=3)[:200]
    grid = Int4(32).grid(weight)
    nearest = grid.store(weight).dequantize(torch.float32)
    rounded = compensated(weight, grid, feedback_of(h))
    output = [(unseen @ (each - weight).t()).norm() for each in (rounded, nearest)]
    assert output[0] < 0.75 * output[1]
    assert (rounded - weight).norm() > (nearest - weight).norm()


def test_without_correlation_it_is_rounding_to_nearest(normal):
    weight = normal(32, 128)
    grid = Int4(32).grid(weight)
    rounded = compensated(weight, grid, feedback_of(torch.diag(torch.rand(128) + 0.5)))
    assert torch.allclose(rounded, grid.store(weight).dequantize(torch.float32), atol=1e-6)


def what_columns_lose(h, order):
    """The sum of D in H = L D L^T, the columns rounded in ``order``."""
    places = order.flip(0)
    return torch.linalg.cholesky(h[places[:, None], places]).diagonal().square().sum().item()


@pytest.mark.parametrize("turned", [False, True], ids=["as it is", "rotated"])
def test_the_order_leaves_less_to_lose_than_that_of_the_diagonal(turned):
    x = inputs(k=256) * torch.logspace(-1, 1, 256)
    h = hessian(rotate(x, 256) if turned else x)
    found = feedback_of(h)
    assert sorted(found.order.tolist()) == list(range(256))
    by_diagonal = what_columns_lose(h, torch.argsort(h.diagonal(), descending=True))
    assert what_columns_lose(h, found.order) < (0.95 if turned else 1.0) * by_diagonal


@pytest.mark.parametrize("k", [40, 200, 1600])
def test_the_feedback_is_the_hessians_factor_in_that_order(k):
    h = hessian(inputs(rows=2 * k, k=k))
    found = feedback_of(h)
    places = found.order.flip(0)
    expected = torch.linalg.cholesky(h[places[:, None], places].double())
    expected /= expected.diagonal().clone()
    assert (found.weights - expected).abs().max() < 1e-3


def test_a_hessian_that_is_not_positive_has_no_feedback():
    assert feedback_of(torch.ones(8, 8)) is None
    assert feedback_of(torch.full((8, 8), float("nan"))) is None


def test_every_weight_is_told_once_and_telling_may_cancel(normal):
    weight, feedback = normal(40, 200), feedback_of(torch.eye(200))
    grid, done = Int4(40).grid(weight), []
    compensated(weight, grid, feedback, done.append)
    assert sum(done) == weight.numel() and len(done) > 1

    def cancel(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compensated(weight, grid, feedback, cancel)
