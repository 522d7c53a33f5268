"""The most memory that work takes: the kernel's own high-water mark of the resident set. Linux."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Peak:
    """taken: bytes beyond what was resident before; it is known when the block has ended."""

    taken: int | None = None


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measures the work of the block, in this process."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else freed pages hide what the block takes
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before, peak = resident("VmRSS"), Peak()
    yield peak
    peak.taken = resident("VmHWM") - before


def resident(field: str) -> int:
    """Bytes of this process: "VmRSS" now, "VmHWM" at most since the last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}: only Linux tells it")
