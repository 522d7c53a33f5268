"""LPIPS, where its package and its network's weights are on the machine already.

Zhang et al. 2018, with AlexNet. The package would fetch AlexNet's weights; here nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch

WEIGHTS = "alexnet-owt-7be5be79.pth"  # as torchvision calls the file


def missing() -> str | None:
    """What is missing here for LPIPS, with the remedy; None where it can be measured."""
    if find_spec("lpips") is None:
        return "LPIPS was not measured: the package is not there (pip install lpips)."
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not (folder / WEIGHTS).is_file():
        return f"LPIPS was not measured: AlexNet's weights, {WEIGHTS}, are not in {folder}."
    return None


def lpips_measure() -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A function that measures LPIPS of pictures [N, 3, H, W] in 0 to 1 (float32 [N] on the CPU, 0
    for equal ones). Call it only where nothing is ``missing``."""
    import lpips

    network = lpips.LPIPS(net="alex", verbose=False).eval()

    def measure(result: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        sides = (side.float().cpu() * 2 - 1 for side in (result, reference))
        with torch.no_grad():
            return network(*sides).flatten()

    return measure
