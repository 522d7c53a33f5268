"""What an example workflow is, and the nodes that they share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..pack import ROOT
from ..tiny_models import TinyModel

FOLDER = ROOT / "example_workflows"


@dataclass(frozen=True)
class Example:
    """name: the file's, which the template browser shows as the title. label: what the thumbnail
    says: a word, a line, the model. columns: node names from left to right, each column from the
    top. tiny: the tiny model that stands in for the real one in tests. muted: columns of nodes that
    do not run until the user unmutes them, below the others. subject: the node that the thumbnail
    shows.
    """

    name: str
    label: tuple[str, str, str]
    note: str
    prompt: dict
    columns: tuple[tuple[str, ...], ...]
    tiny: TinyModel
    muted: tuple[tuple[str, ...], ...] = ()
    subject: str = "quantize"

    @property
    def running(self) -> dict:
        """The prompt without what is muted."""
        muted = {name for column in self.muted for name in column}
        return {name: node for name, node in self.prompt.items() if name not in muted}

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.json"


def node(class_type: str, **inputs) -> dict:
    return {"class_type": class_type, "inputs": inputs}


def text(clip: str, text: str) -> dict:
    return node("CLIPTextEncode", clip=[clip, 0], text=text)


def sample(model: str, negative: str, slot: int = 0, **inputs) -> dict:
    """slot: the output of the node ``negative`` that the negative comes from."""
    usual = {"seed": 42, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    links = {
        "positive": ["positive", 0],
        "negative": [negative, slot],
        "latent_image": ["latent", 0],
    }
    return node("KSampler", model=[model, 0], **links, **{**usual, **inputs})


def image(width: int, height: int) -> dict:
    return node("EmptySD3LatentImage", width=width, height=height, batch_size=1)


def decode(sampler: str, vae: str = "vae") -> dict:
    return node("VAEDecode", samples=[sampler, 0], vae=[vae, 0])


def flux_parts(prompt: str) -> dict:
    load = node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default")
    return {"load": load, **flux_encoded(prompt)}


def flux_encoded(prompt: str) -> dict:
    """FLUX.1 but for its diffusion model: encoders, VAE, conditioning and an empty latent."""
    return {
        "clip": node(
            "DualCLIPLoader",
            clip_name1="clip_l.safetensors",
            clip_name2="t5xxl_fp16.safetensors",
            type="flux",
        ),
        "vae": node("VAELoader", vae_name="ae.safetensors"),
        "text": text("clip", prompt),
        "positive": node("FluxGuidance", conditioning=["text", 0], guidance=3.5),
        "zero": node("ConditioningZeroOut", conditioning=["text", 0]),
        "latent": image(1024, 1024),
    }


def z_image_parts(prompt: str) -> dict:
    """Z-Image Turbo: diffusion model, encoder, VAE, conditioning and an empty latent."""
    return {
        "load": node(
            "UNETLoader", unet_name="z_image_turbo_bf16.safetensors", weight_dtype="default"
        ),
        "clip": node("CLIPLoader", clip_name="qwen_3_4b.safetensors", type="lumina2"),
        "vae": node("VAELoader", vae_name="ae.safetensors"),
        "positive": text("clip", prompt),
        "zero": node("ConditioningZeroOut", conditioning=["positive", 0]),
        "latent": image(1024, 1024),
    }
