"""The example workflows: what they hold, where each node lies, and the same on tiny models.

    python -m lab.examples

writes example_workflows/*.json. Their thumbnails come from lab.screenshots.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from .pack import ROOT
from .server import Server
from .tiny_clips import CLIP_L, T5XXL, dual_clip_files
from .tiny_models import FLUX, WAN, TinyModel, tiny_flux, tiny_wan
from .ui_workflow import ui_workflow

FOLDER = ROOT / "example_workflows"
COLUMN, GAP, WIDTH = 370, 40, 320
ENCODERS = {"CLIPLoader", "DualCLIPLoader"}
PICTURES = {"SaveImage", "SaveAnimatedWEBP", "ImageCompare"}


@dataclass(frozen=True)
class Example:
    """columns: node names from left to right, each column from the top. heights: of those whose
    content is taller than the usual. tiny: the tiny model that stands in for the real one in tests.
    """

    name: str
    note: str
    prompt: dict
    columns: tuple[tuple[str, ...], ...]
    tiny: TinyModel

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.json"


HEIGHTS = {
    "GQQuantizeModel": 480,
    "GQQuantizeTextEncoder": 560,
    "GQQuantizeVAE": 320,
    "GQLayerwiseFP8Cast": 400,
    "GQSaveQuantizedModel": 300,
    "KSampler": 262,
    "CLIPTextEncode": 150,
    "SaveImage": 340,
    "SaveAnimatedWEBP": 400,
    "ImageCompare": 420,
    "DualCLIPLoader": 130,
    "CLIPLoader": 106,
    "EmptySD3LatentImage": 106,
    "EmptyHunyuanLatentVideo": 130,
    "note": 170,
}
USUAL_HEIGHT = 82


def _node(class_type: str, **inputs) -> dict:
    return {"class_type": class_type, "inputs": inputs}


def _text(clip: str, text: str) -> dict:
    return _node("CLIPTextEncode", clip=[clip, 0], text=text)


def _sample(model: str, negative: str, **inputs) -> dict:
    usual = {"seed": 42, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    links = {"positive": ["positive", 0], "negative": [negative, 0], "latent_image": ["latent", 0]}
    return _node("KSampler", model=[model, 0], **links, **{**usual, **inputs})


def _image(width: int, height: int) -> dict:
    return _node("EmptySD3LatentImage", width=width, height=height, batch_size=1)


def _decode(sampler: str, vae: str = "vae") -> dict:
    return _node("VAEDecode", samples=[sampler, 0], vae=[vae, 0])


def _flux_parts(prompt: str) -> dict:
    return {
        "load": _node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
        "clip": _node(
            "DualCLIPLoader",
            clip_name1="clip_l.safetensors",
            clip_name2="t5xxl_fp16.safetensors",
            type="flux",
        ),
        "vae": _node("VAELoader", vae_name="ae.safetensors"),
        "text": _text("clip", prompt),
        "positive": _node("FluxGuidance", conditioning=["text", 0], guidance=3.5),
        "zero": _node("ConditioningZeroOut", conditioning=["text", 0]),
        "latent": _image(1024, 1024),
    }


FLUX_FP8_LORA = Example(
    "flux_fp8_lora",
    "## FLUX.1 in FP8, with a LoRA\n\n**Quantize Model** halves the diffusion model's memory. The "
    "LoRA stays as exact as on the full model, on either side of the node.\n\n**fp8-dynamic** uses "
    "FP8 tensor cores where the GPU has them; elsewhere it runs as **fp8-weight-only**, and the "
    "node says so.",
    {
        **_flux_parts("a lighthouse on a cliff at dusk, long exposure, film grain"),
        "quantize": _node("GQQuantizeModel", model=["load", 0], method="fp8-dynamic"),
        "lora": _node(
            "LoraLoaderModelOnly",
            model=["quantize", 0],
            lora_name="flux_lora.safetensors",
            strength_model=1.0,
        ),
        "sample": _sample("lora", "zero", steps=20),
        "decode": _decode("sample"),
        "save": _node("SaveImage", images=["decode", 0], filename_prefix="flux-fp8-lora"),
    },
    (
        ("note", "load", "clip", "vae"),
        ("quantize",),
        ("lora", "text", "positive", "zero", "latent"),
        ("sample", "decode"),
        ("save",),
    ),
    FLUX,
)

WAN_INT8_LOW_VRAM = Example(
    "wan_int8_low_vram",
    "## Wan 2.1 in INT8, for little VRAM\n\nThe diffusion model, the text encoder and the VAE each "
    "at about half their size. INT8 needs no special hardware.\n\nIf the decode runs out of "
    "memory, that is the picture's size: use VAE Decode (Tiled).",
    {
        "load": _node(
            "UNETLoader", unet_name="wan2.1_t2v_14B_fp16.safetensors", weight_dtype="default"
        ),
        "clip": _node("CLIPLoader", clip_name="umt5_xxl_fp16.safetensors", type="wan"),
        "vae": _node("VAELoader", vae_name="wan_2.1_vae.safetensors"),
        "quantize": _node("GQQuantizeModel", model=["load", 0], method="int8"),
        "quantize_clip": _node("GQQuantizeTextEncoder", clip=["clip", 0], method="int8"),
        "quantize_vae": _node("GQQuantizeVAE", vae=["vae", 0], method="int8"),
        "positive": _text("quantize_clip", "a fox runs through fresh snow, tracking shot"),
        "negative": _text("quantize_clip", "blurry, static, watermark"),
        "shift": _node("ModelSamplingSD3", model=["quantize", 0], shift=8.0),
        "latent": _node("EmptyHunyuanLatentVideo", width=832, height=480, length=33, batch_size=1),
        "sample": _sample("shift", "negative", steps=30, cfg=6.0, sampler_name="uni_pc"),
        "decode": _decode("sample", "quantize_vae"),
        "save": _node(
            "SaveAnimatedWEBP",
            images=["decode", 0],
            filename_prefix="wan-int8",
            fps=16.0,
            lossless=False,
            quality=85,
            method="default",
        ),
    },
    (
        ("note", "load", "clip", "vae"),
        ("quantize", "quantize_vae"),
        ("quantize_clip", "latent"),
        ("shift", "positive", "negative"),
        ("sample", "decode"),
        ("save",),
    ),
    WAN,
)

Z_IMAGE_INT4_SAVE = Example(
    "z_image_int4_save",
    "## Z-Image in INT4, saved\n\nA quarter of the memory. **Save Quantized Model** writes it to "
    "models/diffusion_models once; after that, load it with **Load Quantized Model** and skip the "
    "big file.\n\nINT4 shows: compare before you keep it.",
    {
        "load": _node(
            "UNETLoader", unet_name="z_image_turbo_bf16.safetensors", weight_dtype="default"
        ),
        "clip": _node("CLIPLoader", clip_name="qwen_3_4b.safetensors", type="lumina2"),
        "vae": _node("VAELoader", vae_name="ae.safetensors"),
        "quantize": _node("GQQuantizeModel", model=["load", 0], method="int4"),
        "keep": _node(
            "GQSaveQuantizedModel",
            model=["quantize", 0],
            filename_prefix="z_image_turbo_int4",
            overwrite=True,
        ),
        "positive": _text("clip", "a potter's hands on wet clay, window light, 50 mm"),
        "zero": _node("ConditioningZeroOut", conditioning=["positive", 0]),
        "shift": _node("ModelSamplingAuraFlow", model=["quantize", 0], shift=3.0),
        "latent": _image(1024, 1024),
        "sample": _sample("shift", "zero", steps=8, sampler_name="res_multistep"),
        "decode": _decode("sample"),
        "save": _node("SaveImage", images=["decode", 0], filename_prefix="z-image-int4"),
    },
    (
        ("note", "load", "clip", "vae"),
        ("quantize",),
        ("keep", "positive", "zero"),
        ("shift", "sample", "latent"),
        ("decode", "save"),
    ),
    FLUX,
)

COMPARE_QUANTIZED = Example(
    "compare_quantized",
    "## One model, plain and quantized\n\nThe loader's MODEL goes to both samplers: quantizing one "
    "branch leaves the other exactly as it was. Same seed, same prompt; drag the slider.\n\nOne "
    "picture proves little: look at several seeds.",
    {
        **_flux_parts("a glass teapot on a wooden table, morning sun"),
        "quantize": _node("GQQuantizeModel", model=["load", 0], method="int4"),
        "sample_plain": _sample("load", "zero", steps=20),
        "sample": _sample("quantize", "zero", steps=20),
        "decode_plain": _decode("sample_plain"),
        "decode": _decode("sample"),
        "compare": _node("ImageCompare", image_a=["decode_plain", 0], image_b=["decode", 0]),
    },
    (
        ("note", "load", "clip", "vae"),
        ("quantize",),
        ("text", "positive", "zero", "latent"),
        ("sample_plain", "sample"),
        ("decode_plain", "decode"),
        ("compare",),
    ),
    FLUX,
)

LAYERWISE_FP8_CAST = Example(
    "layerwise_fp8_cast",
    "## FP8 storage, full precision compute\n\n**Layerwise FP8 Cast** keeps the weights in FP8 and "
    "computes each layer in the model's own dtype. It works on any device, for Linear, Conv and "
    "Embedding layers alike.\n\nLeave **scaled** on: a plain cast crushes small weights. To undo "
    "the cast, bypass the node.",
    {
        **_flux_parts("an old observatory under the Milky Way, wide angle"),
        "cast": _node(
            "GQLayerwiseFP8Cast", model=["load", 0], storage_dtype="float8_e4m3fn", scaled=True
        ),
        "sample": _sample("cast", "zero", steps=20),
        "decode": _decode("sample"),
        "save": _node("SaveImage", images=["decode", 0], filename_prefix="layerwise-fp8"),
    },
    (
        ("note", "load", "clip", "vae"),
        ("cast",),
        ("text", "positive", "zero", "latent"),
        ("sample", "decode"),
        ("save",),
    ),
    FLUX,
)

QUANTIZE_VAE = Example(
    "quantize_vae",
    "## The VAE in INT8 too\n\n**Quantize VAE** halves what the VAE's weights take. The slider "
    "shows one latent decoded by both: the plain VAE is not changed.\n\nIt does not help a decode "
    "that runs out of memory: activations fill it. Use VAE Decode (Tiled) for that.",
    {
        **_flux_parts("a market hall in the rain, neon signs, reflections on the floor"),
        "quantize": _node("GQQuantizeModel", model=["load", 0], method="int8"),
        "quantize_vae": _node("GQQuantizeVAE", vae=["vae", 0], method="int8", scope="decoder"),
        "sample": _sample("quantize", "zero", steps=20),
        "decode_plain": _decode("sample"),
        "decode": _decode("sample", "quantize_vae"),
        "compare": _node("ImageCompare", image_a=["decode_plain", 0], image_b=["decode", 0]),
    },
    (
        ("note", "load", "clip", "vae"),
        ("quantize", "quantize_vae"),
        ("text", "positive", "zero", "latent"),
        ("sample",),
        ("decode_plain", "decode"),
        ("compare",),
    ),
    FLUX,
)

QUANTIZE_TEXT_ENCODER = Example(
    "quantize_text_encoder",
    "## The text encoders in INT8 too\n\n**Quantize Text Encoder** plans each encoder of a CLIP on "
    "its own: here the T5 is quantized and CLIP-L, small and sensitive, is kept. The report says "
    "so, encoder by encoder.\n\nIt saves memory, not time: ComfyUI computes text encoders in full "
    "precision.",
    {
        **_flux_parts("a botanist's desk, pressed flowers, handwritten labels, soft daylight"),
        "text": _text("quantize_clip", "a botanist's desk, pressed flowers, soft daylight"),
        "quantize": _node("GQQuantizeModel", model=["load", 0], method="int8"),
        "quantize_clip": _node("GQQuantizeTextEncoder", clip=["clip", 0], method="int8"),
        "report": _node("PreviewAny", source=["quantize_clip", 1]),
        "sample": _sample("quantize", "zero", steps=20),
        "decode": _decode("sample"),
        "save": _node("SaveImage", images=["decode", 0], filename_prefix="int8-text-encoder"),
    },
    (
        ("note", "load", "clip", "vae"),
        ("quantize_clip", "quantize"),
        ("report", "text", "positive", "zero", "latent"),
        ("sample", "decode"),
        ("save",),
    ),
    FLUX,
)

FP8_CAPABILITY_CHECK = Example(
    "fp8_capability_check",
    "## What should I use on this machine?\n\n**FP8 Capability Check** tries every method on your "
    "device. Read the report: native, emulated, fallback or refused, why, and what helps.\n\n"
    "The benchmark measures the layers of the connected model for a few seconds. Without a model "
    "the node runs alone.",
    {
        "load": _node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
        "check": _node("GQFP8CapabilityCheck", model=["load", 0], benchmark=True),
        "method": _node("PreviewAny", source=["check", 1]),
        "report": _node("PreviewAny", source=["check", 2]),
    },
    (("note", "load"), ("check",), ("method", "report")),
    FLUX,
)

EXAMPLES = (
    FLUX_FP8_LORA,
    WAN_INT8_LOW_VRAM,
    Z_IMAGE_INT4_SAVE,
    COMPARE_QUANTIZED,
    LAYERWISE_FP8_CAST,
    QUANTIZE_VAE,
    QUANTIZE_TEXT_ENCODER,
    FP8_CAPABILITY_CHECK,
)


def workflow(
    example: Example, object_info: Callable[[str], dict], prompt: dict | None = None
) -> dict:
    """The editor's JSON of the example, or of ``prompt``, a variant with the same node names."""
    prompt = prompt or example.prompt
    made = ui_workflow(prompt, object_info)
    nodes = dict(zip(prompt, made["nodes"], strict=True))
    for node in made["nodes"]:
        # A widget of the editor alone, which stands in no saved workflow.
        node["inputs"] = [socket for socket in node["inputs"] if socket["type"] != "IMAGECOMPARE"]
    nodes["note"] = _note(example.note, len(nodes) + 1)
    made["nodes"].append(nodes["note"])
    made["last_node_id"] = len(nodes)
    for number, column in enumerate(example.columns):
        top = 0
        for name in filter(nodes.__contains__, column):
            height = HEIGHTS.get(name, HEIGHTS.get(nodes[name]["type"], USUAL_HEIGHT))
            nodes[name] |= {"pos": [number * COLUMN, top], "size": [WIDTH, height]}
            top += height + GAP
    return made


def _note(text: str, number: int) -> dict:
    return {
        "id": number,
        "type": "MarkdownNote",
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": "About this workflow",
        "properties": {},
        "widgets_values": [text],
    }


def on_tiny_model(example: Example) -> dict:
    """The example's prompt as a test can run it: a small picture in few steps, seeded noise for
    what is encoded, the latent saved where a VAE would decode it."""
    tiny = example.tiny
    prompt = {}
    for name, node in example.prompt.items():
        kind, inputs = node["class_type"], dict(node["inputs"])
        if kind in PICTURES or kind in ("VAELoader", "GQQuantizeVAE"):
            continue
        if kind in ENCODERS:
            node = _node("LabDualClip", clip_l=CLIP_L, t5xxl=T5XXL)
        elif kind == "VAEDecode":
            node = _node("SaveLatent", samples=inputs["samples"], filename_prefix=example.name)
        elif kind == "KSampler":
            node = _node(kind, **{**inputs, "steps": 2})
        elif kind.startswith("Empty"):
            node = _node(kind, **{**inputs, **_size(tiny, inputs)})
        elif kind == "CLIPTextEncode" and tiny is WAN:
            node = _node("LabConditioning", seed=1, width=tiny.context_width)
        prompt[name] = node
    return prompt


def _size(tiny: TinyModel, inputs: dict) -> dict:
    size = {"width": tiny.latent[-1] * 8, "height": tiny.latent[-2] * 8}
    return size | ({"length": 5} if "length" in inputs else {})


def tiny_files(models: Path) -> None:
    """Write the files that the examples name, tiny, into ComfyUI's ``models`` folder."""
    dual_clip_files(models / "text_encoders")
    _tiny_lora(models / "loras" / "flux_lora.safetensors")
    for example in EXAMPLES:
        write = tiny_wan if example.tiny is WAN else tiny_flux
        file = models / "diffusion_models" / example.prompt["load"]["inputs"]["unet_name"]
        if not file.exists():
            write(file, 256)


def _tiny_lora(file: Path, hidden: int = 256, rank: int = 4) -> None:
    """A LoRA of one layer of the tiny Flux."""
    generator = torch.Generator().manual_seed(0)
    layer = "diffusion_model.double_blocks.0.img_attn.qkv"
    down = torch.randn(rank, hidden, generator=generator)
    up = torch.randn(3 * hidden, rank, generator=generator)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"{layer}.lora_A.weight": down / hidden, f"{layer}.lora_B.weight": up}, file)


def main() -> None:
    with tempfile.TemporaryDirectory() as base, Server(base) as server:
        for example in EXAMPLES:
            text = json.dumps(workflow(example, server.object_info), indent=1)
            example.file.write_text(text + "\n")
            print(f"wrote {example.file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
