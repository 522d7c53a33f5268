"""The noise itself: the node and the tests' own sampling draw the same."""

import torch


def conditioning(seed: int, width: int, length: int, pooled_width: int, guidance: float) -> list:
    """A CONDITIONING: context (1, length, width) and pooled output (1, pooled_width), float32."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(1, length, width, generator=generator)
    pooled = torch.randn(1, pooled_width, generator=generator)
    return [[context, {"pooled_output": pooled, "guidance": guidance}]]
