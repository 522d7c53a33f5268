"""The trained miniature: a Flux of 2.3 million parameters that draws handwritten digits.

MODEL_CARD.md beside this file tells how the files were made and what they score.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ..tiny_models import TinyModel

FOLDER = Path(__file__).resolve().parent
DIGITS = FOLDER / "digits.npz"
TRANSFORMER = FOLDER / "miniature_flux.safetensors"
VAE = FOLDER / "miniature_vae.safetensors"
LORA = FOLDER / "miniature_italic_lora.safetensors"
CLASSES = FOLDER / "miniature_classes.safetensors"
READER = FOLDER / "miniature_reader.safetensors"

PIXELS_PER_LATENT = 8
SIZE, LARGE = 64, 96
"""Pixels a side of the pictures it was trained on."""

STEPS, CFG = 8, 3.0
"""Of the stock Euler sampler, with the simple schedule."""

MINIATURE = TinyModel(
    TRANSFORMER.name,
    latent=(16, SIZE // PIXELS_PER_LATENT, SIZE // PIXELS_PER_LATENT),
    context_width=64,
    context_length=4,
    pooled_width=64,
)


def install(models: Path) -> None:
    """Copy the transformer, the VAE and the LoRA into a ComfyUI's models folder."""
    for file, folder in ((TRANSFORMER, "diffusion_models"), (VAE, "vae"), (LORA, "loras")):
        (models / folder).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, models / folder / file.name)
