"""Work is counted exactly, and alike whatever else the machine does."""

import pytest
import torch

from lab.counting import TooManyCalls, function_calls, operations


def test_calls_are_those_in_python_and_into_c():
    def three():
        len("")
        abs(-1)
        (lambda: None)()

    assert function_calls(lambda: None) == 0
    assert function_calls(three) == 3


def test_a_loop_without_end_ends_at_the_limit():
    def endless():
        while True:
            len("")

    with pytest.raises(TooManyCalls, match="more than 50 calls"):
        function_calls(endless, limit=50)


def test_operations_are_those_of_the_dispatcher_with_the_tensors_that_they_make():
    x, weight = torch.ones(4, 8), torch.ones(2, 8)
    found = operations(lambda: torch.mm(x, weight.t()).add_(1))
    assert found.calls == {"aten.t.default": 1, "aten.mm.default": 1, "aten.add_.Tensor": 1}
    assert found.new == [(torch.float32, 4 * 2)]
