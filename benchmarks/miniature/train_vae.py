"""Train the miniature's VAE, a 16-channel TAESD, on digits in both styles.

python -m benchmarks.miniature.train_vae [--steps N] [--seed N] [--threads N]
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lab.comfyui import import_comfyui
from lab.miniature import MINIATURE, PIXELS_PER_LATENT, SIZE, VAE
from lab.miniature.pictures import NIGHT, PAPER, digits, draw

from .training import options, placements, save, train

CROP = 32
BATCH = 8
LATENT_NOISE = 0.1
"""Added while training, so that the decoder forgives what a sampler leaves."""

FLUX_SCALE, FLUX_SHIFT = 0.3611, 0.1159
"""Of ComfyUI's latent format for Flux: written into the file, a Flux then sees unit variance."""


def main() -> None:
    chosen = options(__doc__, steps=900)
    import_comfyui()
    from comfy.taesd.taesd import TAESD

    model = TAESD(latent_channels=MINIATURE.latent[0])
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.Conv2d.reset_parameters(layer)  # ComfyUI's own leaves memory as it was
    strokes, _ = digits(held_out=False)

    def loss(step: int) -> torch.Tensor:
        pictures = _pictures(strokes, whole=step % 4 == 0)
        latent = model.taesd_encoder(pictures)
        drawn = model.taesd_decoder(latent + LATENT_NOISE * torch.randn_like(latent))
        return F.mse_loss(drawn, pictures) + F.l1_loss(drawn, pictures) + 0.05 * _off_unit(latent)

    trained = [*model.taesd_encoder.parameters(), *model.taesd_decoder.parameters()]
    train(trained, loss, chosen.steps, rate=1e-3)
    with torch.no_grad():
        model.vae_scale.fill_(FLUX_SCALE)
        model.vae_shift.fill_(FLUX_SHIFT)
        print(f"held-out digits: PSNR {_psnr(model):.1f} dB")
    save(model.state_dict(), VAE)


def _pictures(strokes: torch.Tensor, whole: bool) -> torch.Tensor:
    """Half of each style: crops, or a quarter as many whole pictures (the same count of pixels)."""
    count = BATCH * CROP**2 // SIZE**2 if whole else BATCH
    chosen = strokes[torch.randint(len(strokes), (count,))]
    half = count // 2
    placed = placements(count)
    pictures = torch.cat(
        [
            draw(chosen[:half], SIZE, PAPER, placed[:half]),
            draw(chosen[half:], SIZE, NIGHT, placed[half:]),
        ]
    )
    if whole:
        return pictures
    top, left = torch.randint((SIZE - CROP) // PIXELS_PER_LATENT + 1, (2,)) * PIXELS_PER_LATENT
    return pictures[:, :, top : top + CROP, left : left + CROP]


def _off_unit(latent: torch.Tensor) -> torch.Tensor:
    """How far each channel is from mean 0 and deviation 1."""
    mean, deviation = latent.mean((0, 2, 3)), latent.std((0, 2, 3))
    return (mean.square() + (deviation - 1).square()).mean()


def _psnr(model: torch.nn.Module) -> float:
    strokes, _ = digits(held_out=True)
    pictures = torch.cat([draw(strokes[:50], SIZE, style) for style in (PAPER, NIGHT)])
    drawn = model.taesd_decoder(model.taesd_encoder(pictures)).clamp(0, 1)
    return -10 * F.mse_loss(drawn, pictures).log10().item()


if __name__ == "__main__":
    main()
