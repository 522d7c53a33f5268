"""What work holds at most is measured, also where it is free again at the end."""

import sys

import pytest
import torch

from lab.peak_memory import peak_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
MIB = 2**20


def test_memory_that_is_free_again_counts_and_each_block_starts_anew():
    for mebibytes in (200, 50):
        with peak_memory() as peak:
            held = torch.ones(mebibytes * MIB, dtype=torch.uint8)
            del held
        assert 0.95 * mebibytes * MIB < peak.taken < mebibytes * MIB + 10 * MIB
