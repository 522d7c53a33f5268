"""Every method has its row where users look for it: all methods, and the help of Quantize Model."""

import re

import pytest

from graphquant.quant_core.methods import METHODS
from lab.pack import ROOT


def methods_in_rows(text: str) -> set[str]:
    """The names in backticks in the first cell of each row of a table."""
    first_cells = re.findall(r"^\|([^|]*)\|", text, re.MULTILINE)
    return {name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}


def test_names_are_read_from_first_cells_alone():
    assert methods_in_rows("| `a`, `b` | `c` |\n|---|---|\n`d`") == {"a", "b"}


@pytest.mark.parametrize(
    ("page", "without"),
    [("docs/methods.md", {"none"}), ("web/docs/GQQuantizeModel.md", set())],
)
def test_every_method_has_its_row(page, without):
    rows = methods_in_rows((ROOT / page).read_text(encoding="utf-8"))
    assert set(METHODS) - without - rows == set()
