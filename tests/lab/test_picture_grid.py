"""The grid shows every picture once, in its row."""

import numpy as np
import torch
from PIL import Image

from lab.picture_grid import GAP, LABEL_WIDTH, save_grid


def test_each_picture_lies_in_its_row_and_column(tmp_path):
    colours = torch.rand(2, 3, 3, 1, 1).expand(2, 3, 3, 8, 10)
    save_grid({"one": colours[0], "two": colours[1]}, tmp_path / "grid.png")
    sheet = np.array(Image.open(tmp_path / "grid.png"))
    assert sheet.shape == (2 * (8 + GAP) + GAP, LABEL_WIDTH + 3 * (10 + GAP), 3)
    for row in range(2):
        for column in range(3):
            top, left = GAP + row * (8 + GAP), LABEL_WIDTH + column * (10 + GAP)
            shown = sheet[top : top + 8, left : left + 10]
            wanted = (colours[row, column, :, 0, 0] * 255).round().numpy()
            assert (shown == wanted).all()


def test_every_row_has_its_name_beside_it(tmp_path):
    save_grid({"named": torch.ones(1, 3, 16, 16), "": torch.ones(1, 3, 16, 16)}, tmp_path / "g.png")
    sheet = np.array(Image.open(tmp_path / "g.png"))[:, :LABEL_WIDTH]
    assert (sheet[: 16 + GAP] < 128).any()
    assert (sheet[16 + 2 * GAP :] == 255).all()
