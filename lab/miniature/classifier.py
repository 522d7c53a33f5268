"""A small network that reads digits off pictures: the judge of what the miniature draws."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from . import READER

SIDE = 24


def new_classifier() -> torch.nn.Sequential:
    """Untrained: takes the output of ``strokes_of``, gives logits (N, 10)."""
    return torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Conv2d(16, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten()),
        *(torch.nn.Dropout(0.3), torch.nn.Linear(32 * (SIDE // 4) ** 2, 10)),
    )


def strokes_of(pictures: torch.Tensor) -> torch.Tensor:
    """The stroke alone, whatever the colours: (N, 3, H, W) in 0 to 1 -> (N, 1, SIDE, SIDE).

    The distance from the frame's mean colour, the largest being 1.
    """
    frame = torch.cat([pictures[:, :, :2].flatten(2), pictures[:, :, -2:].flatten(2)], dim=2)
    distance = (pictures - frame.mean(2).view(-1, 3, 1, 1)).square().sum(1, keepdim=True).sqrt()
    small = F.interpolate(distance, SIDE, mode="bilinear", antialias=True)
    return small / small.amax((1, 2, 3), keepdim=True).clamp(min=0.1)


def read(pictures: torch.Tensor) -> torch.Tensor:
    """The digit (N,) read in each picture (N, 3, H, W), float32 in 0 to 1."""
    model = new_classifier().eval()
    model.load_state_dict(load_file(READER))
    return model(strokes_of(pictures)).argmax(1)
