"""A small network that reads digits off pictures: the judge of what the miniature draws."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from . import READER
from .pictures import strokes_of


def new_classifier() -> torch.nn.Sequential:
    """Untrained: takes the output of ``strokes_of``, 24 x 24, gives logits (N, 10)."""
    return torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Conv2d(16, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten()),
        *(torch.nn.Dropout(0.3), torch.nn.Linear(32 * 6 * 6, 10)),
    )


def logits(pictures: torch.Tensor) -> torch.Tensor:
    """A score (N, 10) for every digit in each picture (N, 3, H, W), float32 in 0 to 1."""
    model = new_classifier().eval()
    model.load_state_dict(load_file(READER))
    return model(strokes_of(pictures))


def read(pictures: torch.Tensor) -> torch.Tensor:
    """The digit (N,) read in each picture (N, 3, H, W)."""
    return logits(pictures).argmax(1)
