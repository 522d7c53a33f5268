"""API-format prompts: the miniature draws one picture a digit, on a server."""

from __future__ import annotations

from . import CFG, LORA, MINIATURE, PIXELS_PER_LATENT, STEPS, VAE

SAMPLE, QUANTIZE, SAVE_LATENT, SAVE_PICTURES = "sample", "quantize", "save_latent", "save_pictures"


def draw(digits: str, method: str | None = None, lora: bool = False, seed: int = 0) -> dict:
    """Load, quantize by ``method`` (None leaves the node out), add the LoRA, sample, save."""
    model, prompt = "load", _shared(digits)
    if method:
        prompt[QUANTIZE] = _node("GQQuantizeModel", model=[model, 0], method=method)
        model = QUANTIZE
    if lora:
        prompt["lora"] = _node(
            "LoraLoaderModelOnly", model=[model, 0], lora_name=LORA.name, strength_model=1.0
        )
        model = "lora"
    return prompt | _branch(model, seed)


def _shared(digits: str) -> dict:
    side = MINIATURE.latent[-1] * PIXELS_PER_LATENT
    return {
        "load": _node("UNETLoader", unet_name=MINIATURE.file, weight_dtype="default"),
        "vae": _node("VAELoader", vae_name=VAE.name),
        "positive": _node("LabClassConditioning", digits=digits),
        "negative": _node("LabClassConditioning", digits=""),
        "empty": _node("EmptySD3LatentImage", width=side, height=side, batch_size=len(digits)),
    }


def _branch(model: str, seed: int) -> dict:
    return {
        SAMPLE: _node(
            "KSampler",
            model=[model, 0],
            seed=seed,
            steps=STEPS,
            cfg=CFG,
            sampler_name="euler",
            scheduler="simple",
            positive=["positive", 0],
            negative=["negative", 0],
            latent_image=["empty", 0],
            denoise=1.0,
        ),
        SAVE_LATENT: _node(
            "SaveLatent", samples=[SAMPLE, 0], filename_prefix="graphquant/miniature"
        ),
        "decode": _node("VAEDecode", samples=[SAMPLE, 0], vae=["vae", 0]),
        SAVE_PICTURES: _node(
            "SaveImage", images=["decode", 0], filename_prefix="graphquant/miniature"
        ),
    }


def _node(class_type: str, **inputs) -> dict:
    return {"class_type": class_type, "inputs": inputs}
