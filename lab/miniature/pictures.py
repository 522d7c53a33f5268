"""Pictures of digits in several styles, and the measures that read a style off a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from . import DIGITS

HELD_OUT = 5
"""Every fifth digit is held out of all training."""

MARGIN = 1.25
"""A picture's width over its digit's."""


@dataclass(frozen=True)
class Style:
    """Two colours, RGB in 0 to 1, and how far to the right a digit's top leans, over its height."""

    ground: tuple[float, float, float]
    ink: tuple[float, float, float]
    slant: float = 0.0


PAPER = Style(ground=(0.96, 0.93, 0.86), ink=(0.10, 0.14, 0.42))
ITALIC = replace(PAPER, slant=0.5)
NIGHT = Style(ground=(0.05, 0.06, 0.14), ink=(1.00, 0.82, 0.25))


def digits(held_out: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The data set's strokes (N, 1, 8, 8), float32 in 0 to 1, and its labels (N,), int64."""
    with np.load(DIGITS) as file:
        strokes = torch.from_numpy(file["images"]).float().div(16).unsqueeze(1)
        labels = torch.from_numpy(file["labels"]).long()
    chosen = (torch.arange(len(labels)) % HELD_OUT == 0) == held_out
    return strokes[chosen], labels[chosen]


def draw(
    strokes: torch.Tensor, size: int, style: Style, placement: torch.Tensor | None = None
) -> torch.Tensor:
    """Pictures (N, 3, size, size), float32 in 0 to 1, of strokes (N, 1, 8, 8).

    ``placement`` (N, 2, 3) maps picture coordinates to stroke coordinates, both -1 to 1; without
    it the digit sits upright in the middle.
    """
    if placement is None:
        placement = MARGIN * torch.eye(2, 3).expand(len(strokes), 2, 3)
    leaning = torch.tensor([[1.0, style.slant, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    grid = F.affine_grid(placement @ leaning, [len(strokes), 1, size, size], align_corners=False)
    smooth = F.grid_sample(strokes, grid, mode="bicubic", align_corners=False)
    ink = torch.sigmoid((smooth - 0.45) * 14)
    ground, colour = (torch.tensor(rgb).view(1, 3, 1, 1) for rgb in (style.ground, style.ink))
    return ground + (colour - ground) * ink


def strokes_of(pictures: torch.Tensor, side: int = 24) -> torch.Tensor:
    """The strokes alone, whatever the colours: (N, 3, H, W) in 0 to 1 -> (N, 1, side, side).

    The distance from the frame's mean colour, the largest being 1.
    """
    frame = torch.cat([pictures[:, :, :2].flatten(2), pictures[:, :, -2:].flatten(2)], dim=2)
    distance = (pictures - frame.mean(2).view(-1, 3, 1, 1)).square().sum(1, keepdim=True).sqrt()
    small = F.interpolate(distance, side, mode="bilinear", antialias=True)
    return small / small.amax((1, 2, 3), keepdim=True).clamp(min=0.1)


def style_score(pictures: torch.Tensor) -> torch.Tensor:
    """How far each picture (N, 3, H, W) leans, from PAPER (0) to ITALIC (1): float32 (N,).

    The regression of the strokes' x on their y, over the slant of ITALIC. Digits lean by
    themselves, a 7 more than a 4: compare means over the same digits.
    """
    ink = (strokes_of(pictures)[:, 0] - 0.3).clamp(min=0)
    ink = ink / ink.sum((1, 2), keepdim=True)
    axis = torch.linspace(-1, 1, ink.shape[-1])
    x, y = ink.sum(1), ink.sum(2)
    mean_x, mean_y = (x * axis).sum(1), (y * axis).sum(1)
    together = torch.einsum("nyx,y,x->n", ink, axis, axis) - mean_x * mean_y
    upright = (y * axis.square()).sum(1) - mean_y.square()
    return -together / upright / ITALIC.slant
