"""The trained miniature: a Flux of 2.3 million parameters that draws handwritten digits.

MODEL_CARD.md beside this file tells how the files were made and what they score.
"""

from __future__ import annotations

from pathlib import Path

from ..tiny_models import TinyModel

FOLDER = Path(__file__).resolve().parent
DIGITS = FOLDER / "digits.npz"
TRANSFORMER = FOLDER / "miniature_flux.safetensors"
VAE = FOLDER / "miniature_vae.safetensors"
LORA = FOLDER / "miniature_night_lora.safetensors"
CLASSES = FOLDER / "miniature_classes.safetensors"
READER = FOLDER / "miniature_reader.safetensors"

PIXELS_PER_LATENT = 8
SIZE = 64
"""Pixels a side of a picture; 96 was trained as well."""

MINIATURE = TinyModel(
    TRANSFORMER.name,
    latent=(16, SIZE // PIXELS_PER_LATENT, SIZE // PIXELS_PER_LATENT),
    context_width=64,
    context_length=4,
    pooled_width=64,
)
