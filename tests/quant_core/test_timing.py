"""Calls are timed in turn, by a clock that the tests set."""

import pytest
import torch

from graphquant.quant_core import timing
from graphquant.quant_core.timing import seconds_in_turn
from lab.clock import Clock

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """The module's clock."""
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


@pytest.fixture
def call(clock):
    """Makes calls that take the given seconds, one after another, and the last from then on."""

    def make(name, *seconds):
        left = list(seconds)

        def run():
            call.order.append(name)
            clock.pass_by(left.pop(0) if len(left) > 1 else left[0])

        return run

    call = make
    call.order = []
    return call


def test_the_time_is_the_median_of_one_call_without_the_warm_up(call):
    calls = {"a": call("a", 99, 4, 1, 2), "b": call("b", 99, 8)}
    assert seconds_in_turn(calls, CPU, rounds=3) == {"a": 2, "b": 8}


def test_calls_take_turns_so_that_a_slow_moment_falls_on_all(call):
    seconds_in_turn({name: call(name, 1) for name in "abc"}, CPU, rounds=4)
    assert call.order == [*"abc" * 5]


def test_a_short_call_is_repeated_until_its_sample_is_long_enough(call):
    calls = {"a": call("a", 0.5), "b": call("b", 0.25)}
    assert seconds_in_turn(calls, CPU, rounds=2, shortest=1.25) == {"a": 0.5, "b": 0.25}
    assert call.order == [*"ab", "a", *"aaabbb" * 2]


@pytest.mark.parametrize("budget, rounds", [(0, 3), (9, 5), (1000, 15)])
def test_no_round_begins_when_time_is_up_but_three_are_made(call, budget, rounds):
    seconds_in_turn({name: call(name, 1) for name in "ab"}, CPU, rounds=15, budget=budget)
    assert call.order == [*"ab" * (1 + rounds)]
