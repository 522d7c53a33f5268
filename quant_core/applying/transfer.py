"""Weights on their way to a GPU and back, through page-locked memory.

The driver copies other memory by one thread, and what it writes there first has to be mapped, page
by page. All threads together copy to and from a page-locked piece that the GPU reads at full speed.
"""

from __future__ import annotations

import torch

# Bytes of a piece; what is smaller than a thousandth of it goes as it is.
_PIECE = 64 * 1024 * 1024


class Transfer:
    """Copies between the CPU and a CUDA GPU, one after another through the same piece."""

    def __init__(self):
        self._piece: torch.Tensor | None = None

    def to(self, tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
        """Copies ``tensor`` to ``device``, as ``tensor.to(device)`` does."""
        device = torch.device(device)
        if not self._needs_detour(tensor, device):
            return tensor.to(device)
        target = torch.empty_like(tensor, device=device)
        copy_in_pieces(tensor, target, self._locked())
        return target

    def _needs_detour(self, tensor: torch.Tensor, device: torch.device) -> bool:
        between = {tensor.device.type, device.type} == {"cpu", "cuda"}
        large = tensor.nbytes > _PIECE // 1000
        return between and large and tensor.is_contiguous() and not tensor.is_pinned()

    def _locked(self) -> torch.Tensor:
        if self._piece is None:
            self._piece = torch.empty(_PIECE, dtype=torch.uint8, pin_memory=True)
        return self._piece


def copy_in_pieces(source: torch.Tensor, target: torch.Tensor, piece: torch.Tensor) -> None:
    """Copy ``source`` into ``target``, both contiguous and of one dtype, by way of ``piece``."""
    size = len(piece)
    parts = zip(
        *(each.view(-1).view(torch.uint8).split(size) for each in (source, target)), strict=True
    )
    for read, write in parts:
        passing = piece[: len(read)]
        passing.copy_(read)
        write.copy_(passing)
