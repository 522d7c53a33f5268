"""API-format prompts: a tiny checkpoint through the stock sampler, plain, quantized, or both."""

from __future__ import annotations

from .tiny_models import TinyModel

QUANTIZE = "quantize"
PLAIN = "save_plain"
QUANTIZED = "save_quantized"


def plain(tiny: TinyModel, seed: int = 0) -> dict:
    """Load, sample, save; the latent is saved by the node PLAIN."""
    return _shared(tiny, seed) | _branch("plain", "load", seed)


def quantized(tiny: TinyModel, method: str, seed: int = 0, **options) -> dict:
    """Load, quantize, sample, save; ``options`` are further inputs of Quantize Model."""
    return _shared(tiny, seed) | _quantize(method, options) | _branch("quantized", QUANTIZE, seed)


def both(tiny: TinyModel, method: str, seed: int = 0, **options) -> dict:
    """One loaded MODEL into two samplers, one of them through Quantize Model."""
    return plain(tiny, seed) | quantized(tiny, method, seed, **options)


def _shared(tiny: TinyModel, seed: int) -> dict:
    return {
        "load": _node("UNETLoader", unet_name=tiny.file, weight_dtype="default"),
        "condition": _node(
            "LabConditioning",
            seed=seed,
            width=tiny.context_width,
            length=tiny.context_length,
            pooled_width=tiny.pooled_width,
            guidance=tiny.guidance,
        ),
        "empty": _empty_latent(tiny),
    }


def _empty_latent(tiny: TinyModel) -> dict:
    *frames, height, width = tiny.latent[1:]
    pixels = {"width": width * 8, "height": height * 8, "batch_size": 1}
    if frames:
        return _node("EmptyHunyuanLatentVideo", length=(frames[0] - 1) * 4 + 1, **pixels)
    return _node("EmptySD3LatentImage", **pixels)


def _quantize(method: str, options: dict) -> dict:
    return {QUANTIZE: _node("GQQuantizeModel", model=["load", 0], method=method, **options)}


def _branch(name: str, model: str, seed: int) -> dict:
    sampler = f"sample_{name}"
    return {
        sampler: _node(
            "KSampler",
            model=[model, 0],
            seed=seed,
            steps=4,
            cfg=1.0,
            sampler_name="euler",
            scheduler="simple",
            positive=["condition", 0],
            negative=["condition", 0],
            latent_image=["empty", 0],
            denoise=1.0,
        ),
        f"save_{name}": _node(
            "SaveLatent", samples=[sampler, 0], filename_prefix=f"graphquant/{name}"
        ),
    }


def _node(class_type: str, **inputs) -> dict:
    return {"class_type": class_type, "inputs": inputs}
