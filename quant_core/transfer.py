"""Weights on their way to a GPU and back, through page-locked memory.

The driver copies other memory by one thread, and what it writes there first has to be mapped, page
by page. All threads together copy to and from a page-locked piece that the GPU reads at full speed.
"""

from __future__ import annotations

import torch

# Bytes of a piece; what is smaller than a thousandth of it goes as it is.
_PIECE = 64 * 1024 * 1024


class Transfer:
    """Between the CPU and ``device``; one that is no CUDA GPU needs no detour."""

    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self._piece: torch.Tensor | None = None

    def there(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor`` on the device."""
        if not self._needs_detour(tensor, tensor.device, self.device):
            return tensor.to(self.device)
        target = torch.empty_like(tensor, device=self.device)
        copy_in_pieces(tensor, target, self._locked())
        return target

    def back(self, tensor: torch.Tensor, home: torch.device) -> torch.Tensor:
        """``tensor`` on ``home``, where the weight was."""
        if not self._needs_detour(tensor, home, tensor.device):
            return tensor.to(home)
        target = torch.empty_like(tensor, device=home)
        copy_in_pieces(tensor, target, self._locked())
        return target

    def _needs_detour(self, tensor: torch.Tensor, host: torch.device, device: torch.device) -> bool:
        between = (host.type, device.type) == ("cpu", "cuda")
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
