"""What a measuring or saving node found, in one line for the panel.

Tested by tests/nodes/test_compare_models.py.
"""

from __future__ import annotations

GOOD, BAD, INFO = "good", "bad", "info"


def verdict(key: str, tone: str, **values: str | int) -> dict[str, list[dict]]:
    """A line for the panel, as a node's ``ui`` carries it; several join under the one key.

    key: of a text in locales/*/main.json, whose {names} are ``values``. tone: GOOD, BAD or INFO.
    """
    return {"graphquant_verdict": [{"key": key, "tone": tone, "values": values}]}


def joined(*lines: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """Several of ``verdict``'s lines as one."""
    return {key: [each for line in lines for each in line[key]] for key in lines[0]}
