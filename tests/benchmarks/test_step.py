"""A step of a large model takes no more of a GPU's memory than its bar.

It takes 36 GB of the GPU's memory and 90 of the computer's. Speeds are for ``benchmarks.bars``.
"""

import pytest
import torch

from benchmarks import bars, step

GPU = torch.device("cuda")


@pytest.mark.gpu
@pytest.mark.usefixtures("comfy")
def test_the_peak_memory_of_a_step_is_this_share_of_bf16s():
    if not bars.is_large_hopper(GPU):
        pytest.skip("the bars are for a Hopper GPU of 80 GB and more")
    shares = step.memory_shares(step.measure(tuple(step.MEMORY_BARS), GPU, 1, ()))
    assert shares.keys() == step.MEMORY_BARS.keys()
    over = {method: share for method, share in shares.items() if share > step.MEMORY_BARS[method]}
    assert over == {}


def test_a_missed_bar_is_said_with_its_figure():
    results = {
        "seconds": {"eager": {"int8": 2.0, "int4": 1.0}},
        "bf16 seconds": {"eager": {"int8": 1.0, "int4": 1.0}},
        "peak bytes": {step.PLAIN: 100, "int4": 50},
    }
    assert step.missed_bars(results) == [
        "int8 eager: 0.50, bar 0.92",
        "int4 memory: 0.50, bar 0.40",
    ]
