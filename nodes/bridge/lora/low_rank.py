"""A weight's change as a low-rank product, which can stay beside the codes without rounding."""

from __future__ import annotations

import torch

# Several LoRAs of rank 16 to 64 add up to this; beyond it a side branch stops being cheap.
MAX_RANK = 128
# What factors may leave out of the change, relative L2.
TOLERANCE = 1e-3
_NEGLIGIBLE = 1e-4


def low_rank_factors(delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The factors up [N, r] and down [r, K] whose product is ``delta`` [N, K] within 0.1 %, or
    None.

    r is at most MAX_RANK and a quarter of the smaller side; a delta of zeros alone, or with NaN or
    infinity in it, has no factors.
    Randomized SVD (Halko, Martinsson and Tropp 2011), seeded: equal deltas give equal factors.
    """
    limit = min(MAX_RANK, min(delta.shape) // 4)
    size = delta.norm()
    if limit == 0 or size == 0 or not size.isfinite():
        return None
    # svd_lowrank draws from the global generator, which belongs to the user's workflow.
    with torch.random.fork_rng(devices=[delta.device] if delta.is_cuda else []):
        torch.manual_seed(0)
        u, s, v = torch.svd_lowrank(delta, q=limit, niter=2)
    rank = int((s > s[0] * _NEGLIGIBLE).sum())
    up, down = u[:, :rank] * s[:rank], v[:, :rank].T
    if (delta - up @ down).norm() > TOLERANCE * size:
        return None
    return up.contiguous(), down.contiguous()
