"""Which layer names a pattern means.

A pattern is matched against a layer's full dotted name in one of two ways:

* without a wildcard it must equal one or more *whole, consecutive* dotted components, so ``norm``
  matches ``blocks.0.norm`` but not ``blocks.0.normal_proj``, and ``blocks.1`` does not match
  ``blocks.10``;
* with ``*``, ``?`` or ``[`` it is a shell glob over the *whole* name: ``*norm*`` matches both.

Bare substrings are the classic trap (``mod`` hits ``model``, ``blocks`` hits ``vace_blocks``).
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from .errors import PatternError

_WILDCARDS = frozenset("*?[")


def matches(pattern: str, name: str) -> bool:
    """Whether ``pattern`` matches the layer called ``name``."""
    if _WILDCARDS.intersection(pattern):
        return fnmatchcase(name, pattern)
    return f".{pattern}." in f".{name}."


def first_match(patterns: Iterable[str], name: str) -> str | None:
    """The first of ``patterns`` that matches ``name``, or None."""
    return next((pattern for pattern in patterns if matches(pattern, name)), None)


def parse_patterns(text: str | Iterable[str] | None, argument: str = "") -> tuple[str, ...]:
    """The patterns in a text with one a line (commas separate too), or in an iterable of texts.

    PatternError, with the name of the ``argument``, for anything else.
    """
    if text is None:
        return ()
    try:
        lines = list(text.replace(",", "\n").splitlines() if isinstance(text, str) else text)
    except TypeError:
        raise _no_patterns(argument, text) from None
    for line in lines:
        if not isinstance(line, str):
            raise _no_patterns(argument, line)
    return tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _no_patterns(argument: str, value: object) -> PatternError:
    where = f"{argument} has" if argument else "There is"
    return PatternError(
        f"{where} {value!r:.80}, which is not a pattern. Give a text with one pattern a line, or a "
        "list of texts."
    )
