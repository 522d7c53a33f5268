"""Rectified flow on the VAE's latents: what the transformer and its LoRA are trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from lab.miniature import MINIATURE, SIZE, VAE
from lab.miniature.pictures import Style, digits, draw

from .training import placements

BATCH = 128
DROPPED = 0.1
"""The share of labels hidden, so that guidance has something to steer away from."""

NO_DIGIT = 10
LARGE = SIZE * 3 // 2


@dataclass(frozen=True)
class Latents:
    """One size of picture as the VAE sees it: latents (N, 16, H, W) and labels (N,)."""

    latents: torch.Tensor
    labels: torch.Tensor


def encode(style: Style, copies: dict[int, int]) -> dict[int, Latents]:
    """The training digits in one style, ``copies[size]`` times each, differently placed."""
    from comfy.taesd.taesd import TAESD

    model = TAESD(latent_channels=MINIATURE.latent[0])
    model.load_state_dict(load_file(VAE))
    strokes, labels = digits(held_out=False)

    def encoded(size: int, count: int) -> Latents:
        repeated = strokes.repeat(count, 1, 1, 1)
        pictures = draw(repeated, size, style, placements(len(repeated)))
        latents = [model.taesd_encoder(batch) for batch in pictures.split(16)]
        return Latents(torch.cat(latents), labels.repeat(count))

    with torch.inference_mode(), torch.no_grad():
        found = {size: encoded(size, count) for size, count in copies.items()}
    return {size: Latents(data.latents.clone(), data.labels.clone()) for size, data in found.items()}


def flow_loss(
    model: torch.nn.Module, table: torch.nn.ParameterDict, data: dict[int, Latents]
) -> Callable[[int], torch.Tensor]:
    """The loss of one step: every fourth on the large pictures, half a batch of them.

    x_t = (1 - t) x_0 + t e, target e - x_0, t logistic-normal (Esser et al., 2024, section 3).
    """

    def loss(step: int) -> torch.Tensor:
        size, count = (LARGE, BATCH // 2) if step % 4 == 3 else (SIZE, BATCH)
        chosen = torch.randint(len(data[size].labels), (count,))
        clean, label = data[size].latents[chosen], data[size].labels[chosen]
        label = torch.where(torch.rand(count) < DROPPED, NO_DIGIT, label)
        time = torch.randn(count).sigmoid()
        noise = torch.randn_like(clean)
        mixed = torch.lerp(clean, noise, time.view(-1, 1, 1, 1))
        velocity = model(mixed, time, table["context"][label], y=table["pooled"][label])
        return F.mse_loss(velocity, noise - clean)

    return loss
