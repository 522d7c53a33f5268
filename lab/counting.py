"""What a call costs in work, not seconds: the same count on a busy machine and an idle one."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class TooManyCalls(AssertionError):
    """Raised inside the function that is counted, at its first call beyond the limit."""


def function_calls(run: Callable[[], object], limit: int | None = None) -> int:
    """How many functions ``run`` calls on this thread, in Python and from Python into C.

    TooManyCalls at the call after ``limit``, so that a loop without end ends.
    """
    count = 0

    def on_event(frame, event: str, argument: object) -> None:
        nonlocal count
        if event in ("call", "c_call"):
            count += 1
            if limit is not None and count > limit:
                sys.setprofile(None)
                raise TooManyCalls(f"more than {limit} calls")

    before = sys.getprofile()
    sys.setprofile(on_event)
    try:
        run()
    finally:
        sys.setprofile(before)
    return count - 2  # without run itself, and setprofile that ends the count


@dataclass
class Operations:
    """What PyTorch's dispatcher was asked for. calls: by operator, such as "aten.mm.default".
    new: dtype and elements of each tensor that operators returned, without views and changes in
    place."""

    calls: Counter[str] = field(default_factory=Counter)
    new: list[tuple[torch.dtype, int]] = field(default_factory=list)


def operations(run: Callable[[], object]) -> Operations:
    """The operators that ``run`` calls, and the tensors that they make."""
    found = Operations()

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            found.calls[str(func)] += 1
            if not func.is_view and not func._schema.is_mutable:
                outputs = result if isinstance(result, tuple | list) else (result,)
                found.new += [(x.dtype, x.numel()) for x in outputs if isinstance(x, torch.Tensor)]
            return result

    with Count():
        run()
    return found
