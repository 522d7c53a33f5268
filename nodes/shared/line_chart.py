"""A chart of a curve over sizes as an IMAGE, drawn with Pillow, which ComfyUI has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

_WIDTH, _HEIGHT, _TEXT = 960, 540, 13
_LEFT, _TOP, _RIGHT, _BOTTOM = 80, 48, 150, 56
_GROUND, _INK, _FAINT, _LINE = "#ffffff", "#202124", "#5f6368", "#4c78a8"
_GRID, _CHOSEN, _OTHER = "#e3e5e8", "#d1495b", "#8d96a0"
_TICKS = 5


@dataclass(frozen=True)
class Mark:
    """A point of its own, at x and y in the chart's units. chosen: it is drawn large."""

    x: float
    y: float
    name: str
    chosen: bool = False


def line_chart(
    title: str,
    axes: tuple[str, str],
    curve: Sequence[tuple[float, float]],
    marks: Sequence[Mark],
) -> torch.Tensor:
    """An IMAGE [1, H, W, 3], float32 in 0 to 1. axes: what x and y are. curve: (x, y), joined."""
    sheet = Image.new("RGB", (_WIDTH, _HEIGHT), _GROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    points = [*curve, *((mark.x, mark.y) for mark in marks)]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    top = max(y for _, y in points) or 1.0
    span = (right - left) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - left) / span, y / top
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    pen.text((16, 14), title, fill=_INK, font=font)
    for step in range(_TICKS + 1):
        x, y = left + span * step / _TICKS, top * step / _TICKS
        across, base = place(x, 0)
        _, height = place(left, y)
        pen.line((_LEFT, height, _WIDTH - _RIGHT, height), fill=_GRID)
        pen.text((_LEFT - 8, height), f"{y:.3g}", fill=_FAINT, font=font, anchor="rm")
        pen.text((across, base + 14), f"{x:.3g}", fill=_FAINT, font=font, anchor="mm")
    pen.text((_LEFT - 8, _TOP - 14), axes[1], fill=_FAINT, font=font, anchor="lm")
    pen.text((_WIDTH - _RIGHT, _HEIGHT - 18), axes[0], fill=_FAINT, font=font, anchor="rm")
    pen.line([place(*point) for point in curve], fill=_LINE, width=2)
    for mark in sorted(marks, key=lambda mark: mark.chosen):
        x, y = place(mark.x, mark.y)
        size, colour = (7, _CHOSEN) if mark.chosen else (4, _OTHER)
        pen.ellipse((x - size, y - size, x + size, y + size), fill=colour)
        ink = _INK if mark.chosen else _FAINT
        pen.text((x + size + 4, y - 8), mark.name, fill=ink, font=font, anchor="lm")
    return torch.from_numpy(np.asarray(sheet).copy()).float().div(255).unsqueeze(0)
