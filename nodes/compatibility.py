"""Which ComfyUI this pack works with."""

from __future__ import annotations

OLDEST = "0.30.0"


def require_comfyui(version: str) -> None:
    """Raise RuntimeError for a ComfyUI older than OLDEST, which lacks what the bridge builds on."""
    if _numbers(version) < _numbers(OLDEST):
        raise RuntimeError(
            f"GraphQuant needs ComfyUI {OLDEST} or newer, and this is {version}. Update ComfyUI."
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3])
