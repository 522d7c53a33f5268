"""Rectified flow on the VAE's latents: what the transformer and its LoRA are trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from lab.miniature import LARGE, MINIATURE, SIZE, VAE
from lab.miniature.pictures import Style, digits, draw
from lab.nodes.classes import NO_DIGIT
from lab.tiny_models import flux_module

from .training import placements

BATCH = 64
DROPPED = 0.1
"""The share of labels hidden, so that guidance has something to steer away from."""


@dataclass(frozen=True)
class Latents:
    """One size of picture as the VAE sees it: latents (N, 16, H, W) and labels (N,)."""

    latents: torch.Tensor
    labels: torch.Tensor


def transformer() -> torch.nn.Module:
    """The miniature, untrained, float32, in a process where ComfyUI's Flux has gradients."""
    import comfy.model_management

    comfy.model_management.in_training = True  # its fused rope has none
    placement = {"dtype": torch.float32, "device": "cpu", "operations": torch.nn}
    return flux_module(MINIATURE, 128, depth=2, singles=4, guidance_embed=False, **placement)


def encode(style: Style, pictures: dict[int, int]) -> dict[int, Latents]:
    """Training digits in one style, variously placed: ``pictures[size]`` of them at each size."""
    from comfy.taesd.taesd import TAESD

    model = TAESD(latent_channels=MINIATURE.latent[0])
    model.load_state_dict(load_file(VAE))
    strokes, labels = digits(held_out=False)

    def encoded(size: int, count: int) -> Latents:
        chosen = torch.randint(len(labels), (count,))
        drawn = draw(strokes[chosen], size, style, placements(count))
        latents = [model.taesd_encoder(batch) for batch in drawn.split(16)]
        return Latents(torch.cat(latents), labels[chosen])

    with torch.no_grad():
        return {size: encoded(size, count) for size, count in pictures.items()}


def flow_loss(
    model: torch.nn.Module,
    table: Mapping[str, torch.Tensor],
    data: dict[int, Latents],
    large_share: float,
) -> Callable[[int], torch.Tensor]:
    """The loss of one step: on that share of steps half a batch of large pictures.

    x_t = (1 - t) x_0 + t e, target e - x_0, t logistic-normal (Esser et al., 2024, section 3).
    """

    def loss(step: int) -> torch.Tensor:
        size, count = (LARGE, BATCH // 2) if torch.rand(()) < large_share else (SIZE, BATCH)
        chosen = torch.randint(len(data[size].labels), (count,))
        clean, label = data[size].latents[chosen], data[size].labels[chosen]
        label = torch.where(torch.rand(count) < DROPPED, NO_DIGIT, label)
        time = torch.randn(count).sigmoid()
        noise = torch.randn_like(clean)
        mixed = torch.lerp(clean, noise, time.view(-1, 1, 1, 1))
        velocity = model(mixed, time, table["context"][label], y=table["pooled"][label])
        return F.mse_loss(velocity, noise - clean)

    return loss
