"""Tables of a report that are read as plain text: Preview as Text shows no Markdown.

Tested by tests/nodes/test_aligned.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby


def aligned(report: str) -> str:
    """``report`` with the cells of each Markdown table padded to its columns' widths; a column
    whose rule ends in a colon is padded on the left. It is the same Markdown as before."""
    lines = []
    for is_table, run in groupby(report.splitlines(), lambda line: line.startswith("| ")):
        group = list(run)
        lines += _table(group) if is_table else group
    return "\n".join(lines)


def _table(lines: Sequence[str]) -> list[str]:
    rows = [line[2:-2].split(" | ") for line in lines]
    if len({len(row) for row in rows}) > 1:
        return list(lines)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [rule.endswith(":") for rule in (rows[1] if len(rows) > 1 else rows[0])]
    return ["| " + " | ".join(map(_cell, row, widths, right)) + " |" for row in rows]


def _cell(text: str, width: int, right: bool) -> str:
    if len(text) > 2 and not text.strip("-:"):
        return text.rstrip(":").ljust(width - right, "-") + ":" * right
    return text.rjust(width) if right else text.ljust(width)
