"""What the miniature is told instead of a prompt: the node and the tests read the same table."""

from pathlib import Path

import torch
from safetensors.torch import load_file

CLASSES = Path(__file__).resolve().parent.parent / "miniature" / "miniature_classes.safetensors"
"""``context`` (11, tokens, width) and ``pooled`` (11, width): ten digits, then no digit."""

NO_DIGIT = 10


def class_table(tokens: int, width: int) -> torch.nn.ParameterDict:
    """An untrained table: what the training of the miniature starts from."""
    return torch.nn.ParameterDict(
        {
            "context": torch.randn(NO_DIGIT + 1, tokens, width),
            "pooled": torch.randn(NO_DIGIT + 1, width),
        }
    )


def class_conditioning(digits: str) -> list:
    """A CONDITIONING: context (N, tokens, width), pooled output (N, width), float32; N digits.

    Each picture of a batch of N gets its own digit. An empty text is the one row for "no digit",
    which guidance steers away from. ValueError when something else than 0 to 9 is asked for.
    """
    if digits and not (digits.isascii() and digits.isdecimal()):
        raise ValueError(f"digits={digits!r}: write 0 to 9 only, or nothing for the negative")
    rows = [int(digit) for digit in digits] or [NO_DIGIT]
    table = load_file(CLASSES)
    return [[table["context"][rows].float(), {"pooled_output": table["pooled"][rows].float()}]]
