"""A LoRA's own factors, from the adapters that a ModelPatcher holds.

ComfyUI hands a layer the patched weight, W + BA, rounded to the dtype it patches in (float16 on
most GPUs), and not the adapters. They are found again among the live patchers of the model and
checked against what came: a sum in float16 has lost a small LoRA's digits, but still tells which
one it was.
"""

from __future__ import annotations

import logging
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP
from comfy.weight_adapter.lora import LoRAAdapter

log = logging.getLogger(__name__)

Factors = tuple[torch.Tensor, torch.Tensor]


def adapter_factors(
    patches: Sequence[tuple], shape: tuple[int, int], device: torch.device
) -> Factors | None:
    """(up [N, r], down [r, K]), float32 on ``device``, with up @ down what ``patches`` add to a
    weight of ``shape``; None where one of them is no plain LoRA (DoRA, LoKr, a full difference)."""
    pairs = [_factors_of(patch, shape, device) for patch in patches]
    if not pairs or None in pairs:
        return None
    ups, downs = zip(*pairs, strict=True)
    return torch.cat(ups, dim=1), torch.cat(downs, dim=0)


def _factors_of(patch: tuple, shape: tuple[int, int], device: torch.device) -> Factors | None:
    strength, adapter, strength_model, offset, function = patch
    if not isinstance(adapter, LoRAAdapter) or strength_model != 1.0 or function is not None:
        return None
    up, down, alpha, *others = adapter.weights
    if any(other is not None for other in others):
        return None
    up = up.to(device, torch.float32).flatten(1)
    down = down.to(device, torch.float32).flatten(1)
    up = up * (strength * (1.0 if alpha is None else alpha / len(down)))
    if offset is not None:  # the adapter changes a slice, say q of a fused qkv
        dim, start, _ = offset
        if dim == 0:
            up = _embed(up, 0, start, shape[0])
        else:
            down = _embed(down, 1, start, shape[1])
    return (up, down) if (len(up), down.shape[1]) == tuple(shape) else None


def _embed(part: torch.Tensor, dim: int, start: int, size: int) -> torch.Tensor:
    whole = part.new_zeros([size if d == dim else n for d, n in enumerate(part.shape)])
    whole.narrow(dim, start, part.shape[dim]).copy_(part)
    return whole


class LivePatchers:
    """The patchers that share one quantized model, known by their clones, held weakly."""

    def __init__(self):
        self._patchers: list[weakref.ref[ModelPatcher]] = []
        self.outcomes: Counter[str] = Counter()

    def __deepcopy__(self, memo: dict) -> LivePatchers:
        return self  # torch.compile keeps a copy of a tensor's metadata

    def follow(self, patcher: ModelPatcher) -> None:
        """Know ``patcher`` and everything cloned from it; log how its patches went, on load."""
        self._add(patcher)
        patcher.add_callback_with_key(
            CallbacksMP.ON_CLONE, "graphquant", lambda old, new: self._add(new)
        )
        patcher.add_callback_with_key(CallbacksMP.ON_LOAD, "graphquant", self._log_outcomes)

    def _add(self, patcher: ModelPatcher) -> None:
        self._patchers = [ref for ref in self._patchers if ref() is not None]
        self._patchers.append(weakref.ref(patcher))

    def patches(self, key: str) -> Iterator[Sequence[tuple]]:
        """The patches of ``key`` in each live patcher that has any, newest first."""
        for ref in reversed(self._patchers):
            patcher = ref()
            if patcher is not None and key in patcher.patches:
                yield patcher.patches[key]

    def _log_outcomes(self, *_) -> None:
        if self.outcomes:
            counts = ", ".join(f"{count} {way}" for way, count in self.outcomes.items())
            log.info("patches on quantized layers: %s", counts)
            self.outcomes.clear()


@dataclass(frozen=True)
class PatchSource:
    """Where the patches of one weight may be found.

    All are equal: torch.compile compares the metadata of tensors, and would compile every block of
    a model anew for the sake of its name.
    """

    key: str = field(compare=False)
    patchers: LivePatchers = field(compare=False)

    def factors(self, delta: torch.Tensor, tolerance: float) -> Factors | None:
        """Those factors among the live patchers' that come nearest to ``delta`` [N, K], if they
        come as near as ``tolerance``, in Frobenius norm."""
        best, nearest = None, tolerance
        for patches in self.patchers.patches(self.key):
            found = adapter_factors(patches, tuple(delta.shape), delta.device)
            if found is None:
                continue
            distance = (delta - found[0] @ found[1]).norm().item()
            if distance <= nearest:
                best, nearest = found, distance
        return best
