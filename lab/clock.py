"""A clock for tests of what measures time: it goes on when it is told to, and never by itself."""

from __future__ import annotations


class Clock:
    """Stands in for the module ``time`` in a module that reads ``time.perf_counter()``."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def perf_counter(self) -> float:
        return self.seconds

    def pass_by(self, seconds: float = 0.001) -> None:
        """Let this much time pass."""
        self.seconds += seconds
