"""Warnings about methods that do not work well in a mode of torch.compile."""

from __future__ import annotations

from ..errors import UnknownNameError
from ..methods import resolve_method

COMPILE_MODES = (
    *("none", "default", "reduce-overhead", "max-autotune"),
    "max-autotune-no-cudagraphs",
)

_UNSAFE = {
    ("fp8-dynamic", "reduce-overhead"): "uses autotuned FP8 matmuls, which break graph capture",
    ("fp8-dynamic", "max-autotune"): "is autotuned with graph capture, which its FP8 matmuls break",
}


def get_quant_compile_warnings(method: str, compile_mode: str | None) -> list[str]:
    """Warnings for ``method`` under torch.compile's ``compile_mode``; an empty list is all clear.

    UnknownNameError for a method or mode that does not exist.
    """
    method = resolve_method(method)
    mode = "none" if compile_mode is None else compile_mode
    if mode not in COMPILE_MODES:
        raise UnknownNameError("compile mode", mode, COMPILE_MODES)
    reason = _UNSAFE.get((method, mode))
    if reason is None:
        return []
    return [
        f"{method} with compile mode {mode} {reason}. Use compile mode default, or fp8-weight-only."
    ]
