"""Drawing with the miniature in this process: ComfyUI's own loaders, sampler and VAE."""

from __future__ import annotations

import torch

from ..nodes.classes import class_conditioning
from . import CFG, LORA, MINIATURE, PIXELS_PER_LATENT, SIZE, STEPS, TRANSFORMER, VAE


def load_transformer():
    """The MODEL, as UNETLoader reads it."""
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(TRANSFORMER))


def load_vae():
    """The VAE, as VAELoader reads it."""
    import comfy.sd
    import comfy.utils

    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(VAE)))


def in_italics(patcher, strength: float = 1.0):
    """The MODEL with the LoRA, as LoraLoaderModelOnly gives it."""
    import comfy.sd
    import comfy.utils

    lora = comfy.utils.load_torch_file(str(LORA))
    return comfy.sd.load_lora_for_models(patcher, None, lora, strength, 0)[0]


def noise(count: int, seed: int, size: int = SIZE) -> torch.Tensor:
    """What ``count`` pictures start from: (count, 16, size / 8, size / 8)."""
    import comfy.sample

    side = size // PIXELS_PER_LATENT
    return comfy.sample.prepare_noise(torch.zeros(count, MINIATURE.latent[0], side, side), seed)


def sample_digits(
    patcher, digits: str, seed: int = 0, size: int = SIZE, steps: int = STEPS
) -> torch.Tensor:
    """Latents (N, 16, size / 8, size / 8) of N digits after Euler steps from seeded noise."""
    return sample_from(patcher, digits, noise(len(digits), seed, size), steps)


def sample_from(patcher, digits: str, start: torch.Tensor, steps: int = STEPS) -> torch.Tensor:
    """As ``sample_digits``, from noise of one's own."""
    import comfy.sample

    return comfy.sample.sample(
        patcher,
        start,
        steps,
        CFG,
        "euler",
        "simple",
        class_conditioning(digits),
        class_conditioning(""),
        torch.zeros_like(start),
        disable_pbar=True,
    )


def decode(vae, latents: torch.Tensor) -> torch.Tensor:
    """Pictures (N, 3, H, W), float32 in 0 to 1."""
    return vae.decode(latents).movedim(-1, 1).float()


def call(
    patcher, digits: str, latents: torch.Tensor, start: torch.Tensor, sigma: float
) -> torch.Tensor:
    """One call of the model: its velocity on these latents, ``sigma`` (0 to 1) of the way to the
    noise ``start``."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([patcher])
    model, device = patcher.model, patcher.load_device
    noised = torch.lerp(model.process_latent_in(latents), start, sigma).to(device)
    [[context, extras]] = class_conditioning(digits)
    denoised = model.apply_model(
        noised,
        torch.full((len(digits),), sigma, device=device),
        c_crossattn=context.to(device),
        y=extras["pooled_output"].to(device),
    )
    return ((noised - denoised) / sigma).cpu()
