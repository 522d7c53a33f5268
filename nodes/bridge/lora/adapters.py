"""Finds which adapters changed a weight, among the live patchers of the model.

ComfyUI hands a layer the patched weight, W + BA, rounded to the dtype it patches in (float16 on
most GPUs), and not the adapters. So every candidate is compared with the patched weight: a sum in
float16 has lost a small LoRA's digits, but still tells which one it was.
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

from ..copying.rebinding import rebind
from .adapter_changes import adapter_change
from .changes import Change
from .pending_patches import release_staged

log = logging.getLogger(__name__)


class LivePatchers:
    """The ModelPatchers that share one quantized model, held weakly. outcomes: how the changes of
    its weights were found since the last load, counted."""

    def __init__(self):
        self._patchers: list[weakref.ref[ModelPatcher]] = []
        self.outcomes: Counter[str] = Counter()

    def __deepcopy__(self, memo: dict) -> LivePatchers:
        return self  # torch.compile keeps a copy of a tensor's metadata

    def follow(self, patcher: ModelPatcher) -> None:
        """Watch ``patcher`` and its clones: log on load how patches were carried, and on unload
        release what dynamic VRAM leaves behind."""
        self._add(patcher)
        patcher.add_callback_with_key(CallbacksMP.ON_CLONE, "graphquant", self._on_clone)
        patcher.add_callback_with_key(CallbacksMP.ON_LOAD, "graphquant", self._log_outcomes)
        patcher.add_callback_with_key(CallbacksMP.ON_DETACH, "graphquant", release_staged)

    def _on_clone(self, old: ModelPatcher, new: ModelPatcher) -> None:
        self._add(new)
        if new.model is not old.model:
            rebind(new, old.model, old.patches)

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
    """The place where the patches of one weight may be found.

    All are equal: torch.compile compares the metadata of tensors, and would otherwise recompile
    every block of a model because its name differs.
    """

    key: str = field(compare=False)
    patchers: LivePatchers = field(compare=False)

    def change(
        self, original: torch.Tensor, patched: torch.Tensor, tolerance: float
    ) -> Change | None:
        """The change, among those in the live patchers, that brings ``original`` [N, K] nearest to
        ``patched``; None where none comes within ``tolerance``, in Frobenius norm."""
        best, nearest = None, tolerance
        for patches in self.patchers.patches(self.key):
            found = adapter_change(patches, tuple(original.shape), original.device, original)
            if found is None:
                continue
            distance = found.distance(original, patched, nearest)
            if distance <= nearest:
                best, nearest = found, distance
        return best
