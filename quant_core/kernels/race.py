"""Which of several ways to compute something is quickest on a GPU: asked once, by the clock.

Sizes that are alike share an answer. Answers are kept with Triton's compiled kernels, in its own
cache folder, by the GPU's name and the versions of all that computes.

Tested by tests/quant_core/kernels/test_hazards.py.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from hashlib import sha256

import torch

from ..timing import seconds_in_turn
from ..version import VERSION
from .device import is_captured, with_index
from .triton.start import has_triton

log = logging.getLogger(__name__)

_ROUNDS, _SHORTEST_SAMPLE = 5, 2e-3
_FILE = "graphquant_races.json"
# How far the answers of two ways may lie apart, relative L2: rounding, and no more.
_TOLERANCE = 0.02
ANSWERS: dict[torch.device, dict[str, str]] = {}

Ways = Mapping[str, Callable[[], torch.Tensor]]


def size_class(size: int) -> int:
    """The power of two from ``size`` on."""
    return 1 << max(4, (size - 1).bit_length())


def question(what: str, m: int, n: int, k: int) -> str:
    """What a race is about: sizes of a class share it."""
    return f"{what} {size_class(m)} {size_class(n)} {size_class(k)}"


def known_winner(asked: str, device: torch.device) -> str | None:
    """The answer that is known already, if any; nothing is timed."""
    return _answers(with_index(device)).get(asked)


def winner(asked: str, device: torch.device, ways: Ways) -> str:
    """The name of the quickest of the ``ways`` that run; the first one where timing is impossible,
    because memory is full or a CUDA graph is being captured.

    What gives other numbers than the first that runs is left out. ValueError where none runs.
    """
    device = with_index(device)
    known = _answers(device).get(asked)
    if known in ways:
        return known
    if len(ways) == 1 or is_captured():
        return next(iter(ways))
    try:
        seconds = _race(ways, device)
    except torch.OutOfMemoryError:
        return next(iter(ways))
    log.debug("%s on %s, seconds: %s", asked, device, seconds)
    if not seconds:
        raise ValueError(f"None of {', '.join(ways)} runs on {device}.")
    best = min(seconds, key=seconds.__getitem__)
    ANSWERS[device][asked] = best
    _keep(device, asked, best)
    return best


def _race(ways: Ways, device: torch.device) -> dict[str, float]:
    """The seconds of each that runs and computes what the first computes."""
    expected, right = None, {}
    for name, run in ways.items():
        try:
            y = run().float()
        except torch.OutOfMemoryError:
            raise
        except Exception as problem:  # too much shared memory, or a compiler's no, of any type
            log.debug("%s does not run on %s: %s", name, device, problem)
            continue
        if expected is None:
            expected = y
        if (y - expected).norm() <= _TOLERANCE * expected.norm():
            right[name] = run
        else:
            log.warning("%s computes other numbers on %s than %s.", name, device, next(iter(ways)))
    return seconds_in_turn(right, device, _ROUNDS, _SHORTEST_SAMPLE) if right else {}


def _answers(device: torch.device) -> dict[str, str]:
    if device not in ANSWERS:
        ANSWERS[device] = _read(device)
    return ANSWERS[device]


def _folder(device: torch.device):
    """Triton's cache of this GPU and these versions; None without Triton."""
    if not has_triton() or device.type != "cuda":
        return None
    import triton
    from triton.runtime.cache import get_cache_manager

    properties = torch.cuda.get_device_properties(device)
    versions = (torch.__version__, torch.version.cuda, torch.version.hip, triton.__version__)
    known = (properties.name, properties.multi_processor_count, *versions, VERSION)
    return get_cache_manager(sha256(repr(known).encode()).hexdigest())


def _read(device: torch.device) -> dict[str, str]:
    folder = _folder(device)
    path = folder.get_file(_FILE) if folder else None
    if path is None:
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):  # cut short by a crash: it is asked again
        return {}
    return found if isinstance(found, dict) else {}


def _keep(device: torch.device, asked: str, answer: str) -> None:
    """Saves an answer, keeping those that other processes have saved meanwhile."""
    folder = _folder(device)
    if folder is None:
        return
    try:
        folder.put(json.dumps(_read(device) | {asked: answer}), _FILE, binary=False)
    except OSError as problem:  # a full or read-only disk: it is asked again after a restart
        log.info("Races are not kept: %s", problem)
