"""Rows of small pictures, each row with its name, in one PNG."""

from __future__ import annotations

from pathlib import Path

import torch

LABEL_WIDTH, GAP = 150, 4


def save_grid(rows: dict[str, torch.Tensor], path: str | Path) -> None:
    """Write pictures (N, 3, H, W), float32 in 0 to 1, a row for every name; N, H, W are common."""
    from PIL import Image, ImageDraw, ImageFont

    count, _, height, width = next(iter(rows.values())).shape
    size = (LABEL_WIDTH + count * (width + GAP), len(rows) * (height + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for row, (name, pictures) in enumerate(rows.items()):
        top = GAP + row * (height + GAP)
        pen.text((GAP, top + height // 2), name, fill="black", font=font, anchor="lm")
        pixels = (pictures.movedim(1, -1) * 255).round().byte().numpy()
        for column, picture in enumerate(pixels):
            sheet.paste(Image.fromarray(picture), (LABEL_WIDTH + column * (width + GAP), top))
    sheet.save(path)
