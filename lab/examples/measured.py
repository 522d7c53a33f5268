"""The examples that measure before they quantize: to a size, and to 4 bits by a calibration."""

from __future__ import annotations

from ..tiny_models import FLUX
from .parts import Example, decode, flux_parts, node, sample, z_image_parts

_MEASURING = {"positive": ["positive", 0], "latent_image": ["latent", 0], "steps": 8, "cfg": 1.0}

FIT_A_SIZE = Example(
    "Z-Image in 5 GiB",
    ("5 GiB", "bits where they matter", "Z-Image"),
    "## Z-Image in 5 GiB, with the bits where they matter\n\n**Measure Sensitivity** rounds one "
    "block after another and notes how much the picture changes. It runs once for an architecture "
    "and takes a run of the sampler for each block; the result is kept.\n\n**Quantize Model**, "
    "method **fit**, then gives each layer its width, so that **size_gib** is kept. Connect its "
    "**chart** to see what another size would cost.",
    {
        **z_image_parts("a tram in the fog at dawn, wet cobbles, 35 mm"),
        "measure": node(
            "GQMeasureSensitivity",
            model=["shift", 0],
            **{**_MEASURING, "sampler_name": "res_multistep"},
        ),
        "quantize": node(
            "GQQuantizeModel",
            model=["shift", 0],
            method="fit",
            size_gib=5.0,
            sensitivity=["measure", 0],
        ),
        "chart": node("PreviewImage", images=["quantize", 2]),
        "shift": node("ModelSamplingAuraFlow", model=["load", 0], shift=3.0),
        "sample": sample("quantize", "zero", steps=8, sampler_name="res_multistep"),
        "decode": decode("sample"),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="z-image-fit"),
    },
    (
        ("note", "load", "clip", "vae"),
        ("shift", "positive", "zero", "latent"),
        ("measure",),
        ("quantize",),
        ("chart", "sample", "decode"),
        ("save",),
    ),
    FLUX,
)

CALIBRATED_4_BIT = Example(
    "FLUX.1 in 4 bits, calibrated",
    ("4 bits", "calibrated", "FLUX.1"),
    "## FLUX.1 in 4 bits, rounded by a calibration\n\n**Calibrate Activations** samples once with "
    "the full model and keeps what reaches its layers. **Quantize Model** then rounds each "
    "weight's columns so that they correct each other's errors: about half the loss of rounding "
    "to nearest, in the same bytes.\n\nRounding takes minutes. Save the result with **Save "
    "Quantized Model**, and several different prompts calibrate better than one.",
    {
        **flux_parts("a clockmaker's bench, brass gears, morning light, macro"),
        "calibrate": node(
            "GQCalibrateActivations", model=["load", 0], **_MEASURING, file="flux1-dev"
        ),
        "quantize": node(
            "GQQuantizeModel",
            model=["load", 0],
            method="nf4-fine",
            calibration=["calibrate", 0],
        ),
        "sample": sample("quantize", "zero", steps=20),
        "decode": decode("sample"),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="flux-nf4-fine"),
    },
    (
        ("note", "load", "clip", "vae"),
        ("text", "positive", "zero", "latent"),
        ("calibrate",),
        ("quantize",),
        ("sample", "decode"),
        ("save",),
    ),
    FLUX,
)
