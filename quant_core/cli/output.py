"""The output of the command line: results on stdout, progress and refusals on stderr."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any

_REDRAW_SECONDS = 0.1
GB = 1e9


class Output:
    """as_json: the result is one JSON object, and a refusal one too. quiet: no words but errors."""

    def __init__(self, as_json: bool = False, quiet: bool = False):
        self.as_json = as_json
        self.quiet = quiet
        self._started = time.perf_counter()
        self._drawn = 0.0
        self._bar = not (as_json or quiet) and sys.stderr.isatty()

    def result(self, values: dict[str, Any], words: str) -> None:
        """``values`` as JSON, or ``words``."""
        self._clear()
        if self.as_json:
            sys.stdout.write(json.dumps(values, indent=2) + "\n")
        elif not self.quiet:
            sys.stdout.write(words.rstrip() + "\n")

    def refuse(self, message: str, code: int) -> int:
        """Say why nothing was done; returns ``code``."""
        self._clear()
        if self.as_json:
            sys.stdout.write(json.dumps({"error": message, "code": code}, indent=2) + "\n")
        sys.stderr.write(f"graphquant: {message}\n")
        return code

    def bytes(self, done: int, total: int) -> None:
        """Progress in bytes, with the speed."""
        seconds = max(time.perf_counter() - self._started, 1e-9)
        self._draw(done, total, f"{done / seconds / GB:.2f} GB/s")

    def layers(self, done: int, total: int) -> None:
        """Progress in layers or tensors."""
        self._draw(done, total, f"{done} of {total}")

    def _draw(self, done: int, total: int, told: str) -> None:
        now = time.perf_counter()
        if not self._bar or (now - self._drawn < _REDRAW_SECONDS and done < total):
            return
        self._drawn = now
        share = done / total if total else 1.0
        left = (now - self._started) * (1 - share) / share if share else 0.0
        width = max(10, min(40, shutil.get_terminal_size().columns - 40))
        bar = "#" * round(width * share)
        sys.stderr.write(f"\r[{bar:<{width}}] {share:4.0%}  {told}  {left:.0f} s left   ")
        sys.stderr.flush()

    def _clear(self) -> None:
        if self._bar and self._drawn:
            sys.stderr.write("\r\x1b[K")
            self._drawn = 0.0
