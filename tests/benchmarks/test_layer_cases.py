"""A layer that is made to compute in a way that its GPU would not take by itself."""

import pytest
import torch
from torch import nn

from benchmarks.layer_cases import Forced


class Noting(nn.Module):
    def __init__(self, known):
        super().__init__()
        self.known, self.seen = known, []

    def forward(self, x):
        self.seen.append(dict(self.known))
        if x.numel() == 0:
            raise ValueError("no rows")
        return x


@pytest.mark.parametrize("before", [{}, {"gpu": "row-wise", "other": None}])
def test_verdicts_hold_while_the_layer_runs_and_not_after(before):
    known = dict(before)
    layer = Noting(known)
    forced = Forced(layer, known, {"gpu": "tensor-wise"})
    forced(torch.ones(1))
    assert layer.seen == [{**before, "gpu": "tensor-wise"}] and known == before
    with pytest.raises(ValueError, match="no rows"):
        forced(torch.ones(0))
    assert known == before
