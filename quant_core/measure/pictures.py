"""How alike two pictures look: PSNR, MAE, SSIM and MS-SSIM.

Pictures are [N, 3, H, W], float in 0 to 1; every measure gives one figure a picture, float32 [N].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
# The weights of the five scales, finest first: Wang, Simoncelli, Bovik 2003, section 3.2.
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST_SIDE = (_WINDOW - 1) * 2 ** (len(_SCALE_WEIGHTS) - 1) + 1
"""Pixels a side that MS-SSIM needs: on the coarsest scale the window must still fit."""


def psnr(result: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Peak signal to noise ratio in dB, infinite for equal pictures."""
    return -10 * (result - reference).float().square().flatten(1).mean(1).log10()


def mean_absolute_error(result: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """The mean absolute difference, in steps of 1/255, as pictures are stored."""
    return (result - reference).float().abs().flatten(1).mean(1) * 255


def ssim(result: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Structural similarity, 1 for equal pictures: Wang, Bovik, Sheikh, Simoncelli 2004, with their
    Gaussian window of 11 pixels, where it lies wholly inside. The mean over the colours."""
    structure, luminance = _similarity(result.float(), reference.float())
    return (structure * luminance).flatten(1).mean(1)


def ms_ssim(result: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """SSIM over five scales. ValueError below SMALLEST_SIDE pixels a side."""
    if min(result.shape[-2:]) < SMALLEST_SIDE:
        raise ValueError(
            f"Pictures of {result.shape[-1]} x {result.shape[-2]} are too small for MS-SSIM: "
            f"use {SMALLEST_SIDE} pixels a side or more."
        )
    result, reference = result.float(), reference.float()
    similarity = torch.ones(result.shape[:2], device=result.device)
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        if scale:
            result, reference = _halved(result), _halved(reference)
        structure, luminance = _similarity(result, reference)
        coarsest = scale == len(_SCALE_WEIGHTS) - 1
        mean = (structure * luminance if coarsest else structure).flatten(2).mean(2)
        similarity = similarity * mean.clamp_min(0) ** weight
    return similarity.mean(1)


def _similarity(one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Contrast-structure and luminance terms [N, 3, H - 10, W - 10]."""
    mean_one, mean_other = _blurred(one), _blurred(other)
    variances = _blurred(one * one) - mean_one**2 + _blurred(other * other) - mean_other**2
    covariance = _blurred(one * other) - mean_one * mean_other
    luminance = (2 * mean_one * mean_other + _C1) / (mean_one**2 + mean_other**2 + _C1)
    return (2 * covariance + _C2) / (variances + _C2), luminance


def _blurred(pictures: torch.Tensor) -> torch.Tensor:
    """Weighted means under the Gaussian window, where it fits."""
    offsets = torch.arange(_WINDOW, device=pictures.device) - _WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    window = (window / window.sum()).expand(pictures.shape[1], 1, 1, -1)
    rows = F.conv2d(pictures, window, groups=pictures.shape[1])
    return F.conv2d(rows, window.transpose(2, 3), groups=pictures.shape[1])


def _halved(pictures: torch.Tensor) -> torch.Tensor:
    height, width = pictures.shape[-2:]
    return F.avg_pool2d(pictures, 2, padding=(height % 2, width % 2))
