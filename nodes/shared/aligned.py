"""Tables of a report that are read as plain text: Preview as Text shows no Markdown.

Tested by tests/nodes/test_aligned.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

# Characters of a line in a Preview as Text that is 320 pixels wide. The editor makes it 210 wide,
# where lists stay readable and tables wrap.
WIDTH = 44


def aligned(report: str, width: int = WIDTH) -> str:
    """``report`` with its Markdown tables made readable as plain text.

    A table of at most ``width`` characters a line gets columns under each other; numbers, whose
    rule ends in a colon, are padded on the left. A wider one becomes a list: the first cell of a
    row, and in a second line the others, numbers after their column's name. Both are Markdown.
    """
    lines = []
    for is_table, run in groupby(report.splitlines(), lambda line: line.startswith("| ")):
        group = list(run)
        lines += _readable(group, width) if is_table else group
    return "\n".join(lines)


def _readable(lines: Sequence[str], width: int) -> list[str]:
    rows = [line[2:-2].split(" | ") for line in lines]
    if len(rows) < 3 or len({len(row) for row in rows}) > 1:
        return list(lines)
    rows = [[cell.strip() for cell in row] for row in rows]
    numbers = [rule.endswith(":") for rule in rows[1]]
    table = _table(rows, numbers)
    return table if len(table[0]) <= width else _list(rows, numbers)


def _table(rows: list[list[str]], numbers: list[bool]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["| " + " | ".join(map(_cell, row, widths, numbers)) + " |" for row in rows]


def _cell(text: str, width: int, number: bool) -> str:
    if len(text) > 2 and not text.strip("-:"):
        return text.rstrip(":").ljust(width - number, "-") + ":" * number
    return text.rjust(width) if number else text.ljust(width)


def _list(rows: list[list[str]], numbers: list[bool]) -> list[str]:
    """The rows as list items. What is "-" or empty was not measured, and is left out."""
    header, _, *rest = rows
    lines = []
    for row in rest:
        first, *others = (
            f"{name} {text}" if number else text
            for name, text, number in zip(header, row, numbers, strict=True)
            if text not in ("", "-")
        )
        lines += [f"- {first}", *([f"  {'; '.join(others)}"] if others else [])]
    return lines
