"""What a GPU is called, and what was found out about it by trying.

Tested by tests/quant_core/kernels/test_hazards.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import torch

Found = TypeVar("Found")

# Triton multiplies with matrix instructions. For a GPU without them its code spills registers (1406
# on an RX 6000, after 36 s of compiling). Since release 3.3 it does not support those of Turing.
_FIRST_DOTS = (8, 0)
_AMD_DOTS = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
_FIRST_FP8 = (8, 9)


def with_index(device: torch.device) -> torch.device:
    """``cuda`` is the current GPU; tensors name theirs by number."""
    if device.type != "cuda" or device.index is not None or not torch.cuda.is_available():
        return device
    return torch.device(device.type, torch.cuda.current_device())


def found(
    known: dict[torch.device, Found], device: torch.device, attempt: Callable[..., Found]
) -> Found | None:
    """``attempt(device)``, made once a device and kept in ``known``.

    None, and nothing is kept, where that cannot be said now: the memory is full, or a CUDA graph
    is being captured, which no trial may be part of.
    """
    device = with_index(device)
    if device not in known:
        if is_captured():
            return None
        try:
            known[device] = attempt(device)
        except torch.OutOfMemoryError:
            return None
    return known[device]


def is_captured() -> bool:
    """Whether the current stream's work goes into a CUDA graph."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def gcn_architecture(device: torch.device) -> str:
    """The name of an AMD GPU's architecture, such as "gfx1030"."""
    return torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]


# By device: whether it has a matrix instruction that Triton knows.
DOTS: dict[torch.device, bool] = {}


def multiplies_in_triton(device: torch.device) -> bool:
    """Whether ``device``, named with its number, has a matrix instruction that Triton knows."""
    if device not in DOTS:
        DOTS[device] = device.type == "cuda" and _has_dots(device)
    return DOTS[device]


def _has_dots(device: torch.device) -> bool:
    if torch.version.hip:
        return gcn_architecture(device).startswith(_AMD_DOTS)
    return torch.cuda.get_device_capability(device) >= _FIRST_DOTS


@lru_cache
def reads_float8(device: torch.device) -> bool:
    """Whether the GPU converts FP8 in one instruction; a dozen on integers take an H100 as long as
    moving the bytes does."""
    known = device.type == "cuda" and not torch.version.hip
    return known and torch.cuda.get_device_capability(device) >= _FIRST_FP8
