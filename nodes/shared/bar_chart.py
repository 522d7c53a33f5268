"""A chart of horizontal bars as an IMAGE, drawn with Pillow, which ComfyUI has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

MOST_BARS = 60
_WIDTH, _ROW, _MARGIN, _TEXT = 960, 20, 16, 13
_GROUND, _INK, _FAINT = "#ffffff", "#202124", "#5f6368"


@dataclass(frozen=True)
class Bar:
    """One bar of a chart. length: in the chart's own unit, 0 or more. note: stands behind the
    bar."""

    name: str
    length: float
    note: str
    colour: str = "#4c78a8"


def bar_chart(title: str, bars: Sequence[Bar]) -> torch.Tensor:
    """An IMAGE [1, H, W, 3], float32 in 0 to 1: the first MOST_BARS bars, from the top down."""
    shown = bars[:MOST_BARS]
    height = 2 * _MARGIN + _ROW * (len(shown) + 2 + (len(bars) > len(shown)))
    sheet = Image.new("RGB", (_WIDTH, height), _GROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    pen.text((_MARGIN, _MARGIN), title, fill=_INK, font=font)
    names = max((pen.textlength(bar.name, font) for bar in shown), default=0)
    notes = max((pen.textlength(bar.note, font) for bar in shown), default=0)
    left = _MARGIN + min(names, _WIDTH / 2) + 8
    room = max(40, _WIDTH - _MARGIN - left - notes - 8)
    longest = max((bar.length for bar in shown), default=0) or 1
    for row, bar in enumerate(shown, start=2):
        top = _MARGIN + row * _ROW
        middle, right = top + _ROW / 2, left + room * bar.length / longest
        pen.text((left - 8, middle), bar.name, fill=_INK, font=font, anchor="rm")
        pen.rectangle((left, top + 3, max(left + 1, right), top + _ROW - 4), fill=bar.colour)
        pen.text((right + 6, middle), bar.note, fill=_FAINT, font=font, anchor="lm")
    if len(bars) > len(shown):
        text = f"and {len(bars) - len(shown)} more"
        pen.text((left, height - _MARGIN - _ROW), text, fill=_FAINT, font=font)
    return torch.from_numpy(np.asarray(sheet).copy()).float().div(255).unsqueeze(0)
