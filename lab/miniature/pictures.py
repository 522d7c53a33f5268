"""Pictures of digits in two styles, and the measure that tells the styles apart."""

from __future__ import annotations

from dataclasses import dataclass

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
    """Two colours, RGB in 0 to 1."""

    ground: tuple[float, float, float]
    ink: tuple[float, float, float]


PAPER = Style(ground=(0.96, 0.93, 0.86), ink=(0.10, 0.14, 0.42))
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
    grid = F.affine_grid(placement, [len(strokes), 1, size, size], align_corners=False)
    smooth = F.grid_sample(strokes, grid, mode="bicubic", align_corners=False)
    ink = torch.sigmoid((smooth - 0.45) * 14)
    ground, colour = (torch.tensor(rgb).view(1, 3, 1, 1) for rgb in (style.ground, style.ink))
    return ground + (colour - ground) * ink


def style_score(pictures: torch.Tensor) -> torch.Tensor:
    """How far each picture (N, 3, H, W) is from PAPER (0) towards NIGHT (1): float32 (N,).

    Read from the colour of the outermost sixteenth of the picture, where no digit reaches.
    """
    width = max(1, pictures.shape[-1] // 16)
    frame = torch.ones(pictures.shape[-2:], dtype=torch.bool)
    frame[width:-width, width:-width] = False
    colour = pictures[:, :, frame].float().mean(2)
    paper, night = torch.tensor(PAPER.ground), torch.tensor(NIGHT.ground)
    axis = night - paper
    return (colour - paper) @ axis / axis.square().sum()
