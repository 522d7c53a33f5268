"""Ours and comfy-kitchen's kernels are compared once a device, and nothing is concluded from a full
card. The contests here are of stand-ins on the CPU: who wins by the clock is not what is tested."""

import pytest
import torch

from graphquant.quant_core.formats import Int8, Int8ConvRot

pytestmark = pytest.mark.usefixtures("comfy")

FMT = Int8ConvRot(activations="int8")


@pytest.fixture
def contest(monkeypatch):
    """The module without a verdict, on a small example, timed by ``contest.seconds``."""
    from graphquant.nodes.bridge.tensor import contest

    monkeypatch.setattr(contest, "_verdicts", {})
    monkeypatch.setattr(contest, "_postponed", type(contest._postponed)())
    monkeypatch.setattr(contest, "_SHAPE", (64, 256))
    monkeypatch.setattr(contest, "_MANY_ROWS", 32)
    contest.seconds = {False: 2.0, True: 1.0}
    monkeypatch.setattr(contest, "seconds_in_turn", lambda calls, *_: contest.seconds)
    return contest


class Theirs:
    """``fmt.linear``, counted; ``error`` is raised instead."""

    def __init__(self, error=None, factor=1.0):
        self.calls, self.error, self.factor = 0, error, factor

    def __call__(self, x, weight, bias):
        self.calls += 1
        if self.error is not None:
            raise self.error
        return weight.format.linear(x, weight, bias) * self.factor


MANY, FEW = torch.ones(64, 256), torch.ones(2, 256)


@pytest.mark.parametrize("quicker", [True, False])
def test_the_quicker_wins_and_is_asked_once(contest, quicker):
    contest.seconds = {quicker: 1.0, not quicker: 2.0}
    theirs = Theirs()
    assert {contest.is_won(FMT, MANY, theirs) for _ in range(5)} == {quicker}
    assert contest.wins(FMT, torch.device("cpu"), theirs) is quicker
    assert theirs.calls == 1


def test_few_rows_and_other_formats_have_contests_of_their_own(contest):
    theirs = Theirs()
    for fmt in (FMT, Int8(activations="int8"), Int8()):
        assert contest.is_won(fmt, MANY, theirs) and contest.is_won(fmt, FEW, theirs)
    assert theirs.calls == 6


@pytest.mark.parametrize("error", [KeyError("AsymW4A8Int8Layout"), RuntimeError(), TypeError()])
def test_who_cannot_multiply_has_lost(contest, error):
    theirs = Theirs(error)
    assert not contest.is_won(FMT, MANY, theirs)
    theirs.error = None
    assert not contest.is_won(FMT, MANY, theirs) and theirs.calls == 1


def test_ours_that_cannot_multiply_has_lost_too(contest, monkeypatch):
    monkeypatch.setattr(Int8, "linear", lambda *_: 1 / 0)
    assert contest.is_won(Int8(), MANY, lambda x, weight, bias: x)


def test_wrong_numbers_lose_however_quick(contest, caplog):
    assert not contest.is_won(FMT, MANY, Theirs(factor=1.05))
    assert "wrongly" in caplog.text


def test_a_full_card_gives_no_verdict_and_is_not_asked_at_every_call(contest):
    theirs = Theirs(torch.OutOfMemoryError())
    assert not contest.is_won(FMT, MANY, theirs)
    theirs.error = None
    answers = [contest.is_won(FMT, MANY, theirs) for _ in range(300)]
    assert answers.index(True) == contest._CALLS_UNTIL_RETRY
    assert theirs.calls == 2


def test_torch_compile_takes_what_is_known_and_tries_nothing(contest, monkeypatch):
    theirs = Theirs()
    monkeypatch.setattr(contest, "is_traced", lambda x: True)
    assert not contest.is_won(FMT, MANY, theirs) and theirs.calls == 0
    assert contest.wins(FMT, torch.device("cpu"), theirs)
    assert contest.is_won(FMT, MANY, theirs)


def test_the_global_random_numbers_stay_as_they_are(contest):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    contest.is_won(FMT, MANY, Theirs())
    assert torch.equal(torch.rand(1), expected)
