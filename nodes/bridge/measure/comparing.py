"""Two MODELs through ComfyUI's sampler with the same noise, seed by seed.

Tested by tests/nodes/test_compare_models.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE

from ....quant_core.measure.comparison import CallError, Likeness, SeedResult
from ....quant_core.measure.pictures import SMALLEST_SIDE, mean_absolute_error, ms_ssim, psnr, ssim
from ....quant_core.measure.relative_error import error_of
from .call_errors import Predictions, following, recording
from .sampling import Sampling, picture_of

Measure = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Pictures:
    """The decoded pictures of one seed: IMAGEs [N, H, W, 3] on the CPU."""

    reference: torch.Tensor
    quantized: torch.Tensor


def compare_seeds(
    reference: ModelPatcher,
    model: ModelPatcher,
    sampling: Sampling,
    seeds: Iterable[int],
    vae: VAE | None = None,
    lpips: Measure | None = None,
) -> tuple[list[SeedResult], list[Pictures]]:
    """A result for each seed, and with a ``vae`` its pictures. Neither MODEL is changed.

    A seed takes three runs: the reference's, the model's along it, and the model's own.
    """
    seeds = list(seeds)
    bar = comfy.utils.ProgressBar(3 * sampling.steps * len(seeds))
    results, pictures = [], []
    for seed in seeds:
        predictions: Predictions = []
        calls: list[CallError] = []
        expected = sampling.run(recording(reference, predictions), seed, bar)
        sampling.run(following(model, predictions, calls), seed, bar)
        own = sampling.run(model, seed, bar)
        latents = [picture_of(latent) for latent in (expected, own)]
        likeness = None
        if vae is not None:
            pictures.append(Pictures(*(_decode(vae, latent) for latent in latents)))
            likeness = _likeness(pictures[-1], lpips)
        results.append(SeedResult(seed, tuple(calls), error_of(*reversed(latents)), likeness))
    return results, pictures


def _decode(vae: VAE, latent: torch.Tensor) -> torch.Tensor:
    """An IMAGE; a video's frames follow each other, as in VAE Decode."""
    images = vae.decode(latent).cpu().float()
    return images.reshape(-1, *images.shape[-3:])


def _likeness(pictures: Pictures, lpips: Measure | None) -> Likeness:
    pair = [side.movedim(-1, 1) for side in (pictures.quantized, pictures.reference)]
    large = min(pair[0].shape[-2:]) >= SMALLEST_SIDE
    return Likeness(
        psnr=psnr(*pair).min().item(),
        mae=mean_absolute_error(*pair).max().item(),
        ssim=ssim(*pair).min().item(),
        ms_ssim=ms_ssim(*pair).min().item() if large else None,
        lpips=lpips(*pair).max().item() if lpips else None,
    )
