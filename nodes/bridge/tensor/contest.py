"""Times once which kernel is quicker on a device, ours or comfy-kitchen's.

comfy-kitchen has compiled kernels, but not for every GPU, CUDA and system, and its plain PyTorch is
slower than ours. Nothing about a device says which it will be, so both multiply the same example.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial

import torch

from ....quant_core.formats import Format, QuantizedWeight
from ....quant_core.kernels.blocks import is_traced
from ....quant_core.kernels.dispatch import has_few_rows, with_index
from ....quant_core.timing import seconds_in_turn

log = logging.getLogger(__name__)

Linear = Callable[[torch.Tensor, QuantizedWeight, torch.Tensor | None], torch.Tensor]
Match = tuple[Format, bool, torch.device]

# N and K of the example, an image model's, and the rows of an image and of a modulation.
_SHAPE, _MANY_ROWS, _FEW_ROWS = (6144, 3072), 4096, 1
_ROUNDS, _SHORTEST_SAMPLE = 5, 5e-3
# Both round to the same codes; they differ by the dtype that they scale and rotate in.
_TOLERANCE = 0.02
# Activations in four bits: codes next to a tie fall either way by what x is scaled in, which moves
# 3 % of a product. A kernel that is wrong is off by all of it.
_TOLERANCE_OF_FOUR_BITS = 0.1
# Calls after which a contest that found no memory is tried again.
_CALLS_UNTIL_RETRY = 256

_verdicts: dict[Match, bool] = {}
_postponed: Counter[Match] = Counter()


def is_won(fmt: Format, x: torch.Tensor, theirs: Linear) -> bool:
    """Whether ``theirs`` is quicker than ``fmt.linear`` for activations like ``x``.

    While torch.compile traces or a CUDA graph is captured nothing can be timed: then it is the
    answer that is known already, or False.
    """
    match = (fmt, has_few_rows(x), with_index(x.device))
    if match in _verdicts:
        return _verdicts[match]
    if is_traced(x) or (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        return False
    return _verdict(match, theirs)


def wins(fmt: Format, device: torch.device, theirs: Linear) -> bool:
    """As ``is_won``, for an image's many rows on ``device``."""
    match = (fmt, False, with_index(device))
    return _verdicts[match] if match in _verdicts else _verdict(match, theirs)


def _verdict(match: Match, theirs: Linear) -> bool:
    if _postponed[match] > 0:
        _postponed[match] -= 1
        return False
    try:
        _verdicts[match] = _hold(match, theirs)
    except torch.OutOfMemoryError:  # says nothing about who is quicker
        log.debug("No memory for %s on %s: tried again later", match[0], match[2])
        _postponed[match] = _CALLS_UNTIL_RETRY
        return False
    return _verdicts[match]


def _hold(match: Match, theirs: Linear) -> bool:
    fmt, few, device = match
    with torch.no_grad():
        x, weight = _example(fmt, _FEW_ROWS if few else _MANY_ROWS, device)
        ours = partial(fmt.linear, x, weight, None)
        found = _result(partial(theirs, x, weight, None), f"comfy-kitchen: {fmt}")
        if found is None:
            return False
        expected = _result(partial(fmt.emulated, x, weight, None), f"GraphQuant: {fmt}")
        if expected is None:
            return True
        found, expected = found.float(), expected.float()
        four = fmt.activations in ("int4", "nvfp4")
        tolerance = _TOLERANCE_OF_FOUR_BITS if four else _TOLERANCE
        if (found - expected).norm() > tolerance * expected.norm():
            log.warning("comfy-kitchen multiplies %s wrongly on %s and is not used", fmt, device)
            return False
        calls = {False: ours, True: partial(theirs, x, weight, None)}
        seconds = seconds_in_turn(calls, device, _ROUNDS, _SHORTEST_SAMPLE)
    log.debug("%s on %s, seconds by comfy-kitchen: %s", fmt, device, seconds)
    return seconds[True] < seconds[False]


def _result(multiply: Callable[[], torch.Tensor], who: str) -> torch.Tensor | None:
    """None where there is no such layout or kernel here."""
    try:
        return multiply()
    except torch.OutOfMemoryError:
        raise
    except Exception as problem:  # a library says no by any type of exception
        log.debug("%s is not multiplied: %s", who, problem)
        return None


def _example(fmt: Format, rows: int, device: torch.device) -> tuple[torch.Tensor, QuantizedWeight]:
    generator = torch.Generator(device).manual_seed(0)

    def gaussian(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16)

    return gaussian(rows, _SHAPE[1]), fmt.quantize(gaussian(*_SHAPE))
