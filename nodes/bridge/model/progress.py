"""Progress of work whose layers take very different times, with the time that is left.

Tested by tests/nodes/test_calibrated_rounding.py.
"""

from __future__ import annotations

import time

import comfy.model_management
import comfy.utils
from comfy_execution.utils import get_executing_context

_PARTS = 1000
_SECONDS_BETWEEN_TEXTS = 2.0


class Progress:
    """ComfyUI's progress bar over ``total`` units of work, and a text with the time left on the
    node that is running."""

    def __init__(self, total: int):
        self._total, self._done = max(1, total), 0
        self._bar = comfy.utils.ProgressBar(_PARTS)
        self._started = self._told = time.perf_counter()

    def advance(self, work: int) -> None:
        """``work`` units are done. Raises where the user has cancelled."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._done += work
        self._bar.update_absolute(min(_PARTS, self._done * _PARTS // self._total))
        now = time.perf_counter()
        if work and now - self._told >= _SECONDS_BETWEEN_TEXTS:
            self._told = now
            left = (now - self._started) / self._done * (self._total - self._done)
            tell(f"about {in_words(left)} left")


def in_words(seconds: float) -> str:
    """A time in words, as precise as estimates are."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def tell(text: str) -> None:
    """Show ``text`` on the node that is running; without a server, nothing happens."""
    from server import PromptServer

    context, server = get_executing_context(), getattr(PromptServer, "instance", None)
    if context is not None and server is not None:
        server.send_progress_text(text, context.node_id)
