"""Small JSON files that are written at once or not at all, and read with the file's name in errors.

Tested by tests/quant_core/fit/test_recipe.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..errors import FitError, require_path

T = TypeVar("T")


def replace_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` through a file beside it, which then takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(text, "utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_text(path: str | Path, parse: Callable[[str], T]) -> T:
    """What ``parse`` makes of the text in ``path``. FitError names the file."""
    require_path("path", path)
    try:
        return parse(Path(path).read_text("utf-8"))
    except (FitError, UnicodeDecodeError) as error:
        raise FitError(f"{Path(path).name}: {error}") from None
    except OSError as error:
        raise FitError(f"Can't read {path}: {error.strerror}. Check the path.") from None
