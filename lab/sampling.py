"""Sampling in this process, without a server: the stock sampler on seeded inputs."""

from __future__ import annotations

import torch

from .nodes.noise import conditioning
from .tiny_models import TinyModel


def sample(
    patcher,
    tiny: TinyModel,
    steps: int = 4,
    seed: int = 0,
    control=None,
    cfg: float = 1.0,
    masked: bool = False,
) -> torch.Tensor:
    """The latent (1, *tiny.latent) after ``steps`` Euler steps from seeded noise.

    cfg: above 1 with a negative prompt of other noise. masked: what is denoised rises from left to
    right, as a soft inpainting mask has it.
    control: a ControlNet with its hint, as Apply ControlNet leaves it in the conditioning.
    """
    import comfy.sample

    latent = torch.zeros(1, *tiny.latent)
    positive, negative = (
        conditioning(
            number, tiny.context_width, tiny.context_length, tiny.pooled_width, tiny.guidance
        )
        for number in (seed, seed + (cfg != 1.0))
    )
    if control is not None:
        positive[0][1]["control"] = control
        positive[0][1]["control_apply_to_uncond"] = True
    width = 8 * tiny.latent[-1]
    mask = torch.linspace(0, 1, width).expand(1, 1, width, width) if masked else None
    noise = comfy.sample.prepare_noise(latent, seed)
    return comfy.sample.sample(
        patcher,
        noise,
        steps,
        cfg,
        "euler",
        "simple",
        positive,
        negative,
        latent,
        noise_mask=mask,
        seed=seed,
        disable_pbar=True,
    )


def relative_l2(result: torch.Tensor, reference: torch.Tensor) -> float:
    """||result - reference|| / ||reference||, in float64."""
    reference = reference.double()
    return ((result.double() - reference).norm() / reference.norm()).item()
