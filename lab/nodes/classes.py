"""What the miniature is told instead of a prompt: the node and the tests read the same table."""

from pathlib import Path

import torch
from safetensors.torch import load_file

CLASSES = Path(__file__).resolve().parent.parent / "miniature" / "miniature_classes.safetensors"
"""``context`` (11, tokens, width) and ``pooled`` (11, width): ten digits, then "no digit"."""

ANY = -1


def class_conditioning(digit: int) -> list:
    """A CONDITIONING: context (1, tokens, width) and pooled output (1, width), float32.

    ``digit`` is 0 to 9, or ANY for the one that guidance steers away from.
    """
    table = load_file(CLASSES)
    context, pooled = (table[name][digit].float().unsqueeze(0) for name in ("context", "pooled"))
    return [[context, {"pooled_output": pooled}]]


def class_table(tokens: int, width: int) -> torch.nn.ParameterDict:
    """An untrained table: what the training of the miniature starts from."""
    return torch.nn.ParameterDict(
        {"context": torch.randn(11, tokens, width), "pooled": torch.randn(11, width)}
    )
