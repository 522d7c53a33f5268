"""The example workflows: what each holds and shows."""

from __future__ import annotations

from ..tiny_models import FLUX, WAN
from .controlnet import QUANTIZE_CONTROLNET
from .measured import CALIBRATED_4_BIT, FIT_A_SIZE
from .parts import Example, decode, flux_encoded, flux_parts, node, sample, text, z_image_parts

LORA = "pixel_art_style_z_image_turbo.safetensors"
_SAVED = "flux1-dev-int8"

FP8_WITH_LORA = Example(
    "Z-Image in FP8 with a LoRA",
    ("FP8", "with a LoRA", "Z-Image"),
    "## Z-Image in FP8, with a LoRA\n\n**Quantize Model** halves the diffusion model's memory. The "
    "LoRA stays as exact as on the full model, on either side of the node.\n\n**fp8-dynamic** uses "
    "FP8 tensor cores where the GPU has them; elsewhere it runs as **fp8-weight-only**, and the "
    "node says so.",
    {
        **z_image_parts("pixel art style, a lighthouse on a cliff at dusk"),
        "quantize": node("GQQuantizeModel", model=["load", 0], method="fp8-dynamic"),
        "lora": node(
            "LoraLoaderModelOnly",
            model=["quantize", 0],
            lora_name=LORA,
            strength_model=1.0,
        ),
        "shift": node("ModelSamplingAuraFlow", model=["lora", 0], shift=3.0),
        "sample": sample("shift", "zero", steps=8, sampler_name="res_multistep"),
        "decode": decode("sample"),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="z-image-fp8-lora"),
    },
    (
        ("note", "load", "clip", "vae"),
        ("quantize",),
        ("lora", "positive", "zero", "latent"),
        ("shift", "sample", "decode"),
        ("save",),
    ),
    FLUX,
)

WAN_INT8_LOW_VRAM = Example(
    "Wan 2.2 in INT8 for little VRAM",
    ("INT8", "for little VRAM", "Wan 2.2"),
    "## Wan 2.2 (5B) in INT8, for little VRAM\n\nThe diffusion model, the text encoder and the VAE "
    "each at about half their size. INT8 needs no special hardware.\n\nIf the decode runs out of "
    "memory, that is the picture's size: use VAE Decode (Tiled).",
    {
        "load": node(
            "UNETLoader", unet_name="wan2.2_ti2v_5B_fp16.safetensors", weight_dtype="default"
        ),
        "clip": node("CLIPLoader", clip_name="umt5_xxl_fp16.safetensors", type="wan"),
        "vae": node("VAELoader", vae_name="wan2.2_vae.safetensors"),
        "quantize": node("GQQuantizeModel", model=["load", 0], method="int8"),
        "quantize_clip": node("GQQuantizeTextEncoder", clip=["clip", 0], method="int8"),
        "quantize_vae": node("GQQuantizeVAE", vae=["vae", 0], method="int8"),
        "positive": text("quantize_clip", "a fox runs through fresh snow, tracking shot"),
        "negative": text("quantize_clip", "blurry, static, watermark"),
        "shift": node("ModelSamplingSD3", model=["quantize", 0], shift=8.0),
        "latent": node(
            "Wan22ImageToVideoLatent",
            vae=["quantize_vae", 0],
            width=1280,
            height=704,
            length=49,
            batch_size=1,
        ),
        "sample": sample("shift", "negative", steps=20, cfg=5.0, sampler_name="uni_pc"),
        "decode": decode("sample", "quantize_vae"),
        "save": node(
            "SaveAnimatedWEBP",
            images=["decode", 0],
            filename_prefix="wan-int8",
            fps=24.0,
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
    "Z-Image in INT4, saved to a file",
    ("INT4", "saved to a file", "Z-Image"),
    "## Z-Image in INT4, saved\n\nA quarter of the memory. **Save Quantized Model** writes it to "
    "models/diffusion_models once; after that, load it with **Load Quantized Model** and skip the "
    "big file.\n\nINT4 shows: compare before you keep it.",
    {
        **z_image_parts("a potter's hands on wet clay, window light, 50 mm"),
        "quantize": node("GQQuantizeModel", model=["load", 0], method="int4"),
        "keep": node(
            "GQSaveQuantizedModel",
            model=["quantize", 0],
            filename_prefix="z_image_turbo_int4",
            overwrite=True,
        ),
        "shift": node("ModelSamplingAuraFlow", model=["quantize", 0], shift=3.0),
        "sample": sample("shift", "zero", steps=8, sampler_name="res_multistep"),
        "decode": decode("sample"),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="z-image-int4"),
    },
    (
        ("note", "load", "clip", "vae"),
        ("quantize",),
        ("keep", "positive", "zero"),
        ("shift", "sample", "latent"),
        ("decode", "save"),
    ),
    FLUX,
    subject="keep",
)

COMPARE_QUANTIZED = Example(
    "FLUX.1 plain and quantized, side by side",
    ("bf16 | INT4", "side by side", "FLUX.1"),
    "## One model, plain and quantized\n\nThe loader's MODEL goes to both samplers: quantizing one "
    "branch leaves the other exactly as it was. Same seed, same prompt; drag the slider.\n\nOne "
    "picture proves little: look at several seeds.",
    {
        **flux_parts("a glass teapot on a wooden table, morning sun"),
        "quantize": node("GQQuantizeModel", model=["load", 0], method="int4"),
        "sample_plain": sample("load", "zero", steps=20),
        "sample": sample("quantize", "zero", steps=20),
        "decode_plain": decode("sample_plain"),
        "decode": decode("sample"),
        "compare": node("ImageCompare", image_a=["decode_plain", 0], image_b=["decode", 0]),
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
    "FLUX.1 in FP8 by Layerwise Cast",
    ("FP8", "Layerwise Cast", "FLUX.1"),
    "## FP8 storage, full precision compute\n\n**Layerwise Cast** keeps the weights in FP8 and "
    "computes each layer in the model's own dtype. It works on any device, for Linear, Conv and "
    "Embedding layers alike.\n\nLeave **scaled** on: a plain cast crushes small weights. To undo "
    "the cast, bypass the node.",
    {
        **flux_parts("an old observatory under the Milky Way, wide angle"),
        "cast": node(
            "GQLayerwiseFP8Cast", model=["load", 0], storage_dtype="float8_e4m3fn", scaled=True
        ),
        "sample": sample("cast", "zero", steps=20),
        "decode": decode("sample"),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="layerwise-fp8"),
    },
    (
        ("note", "load", "clip", "vae"),
        ("cast",),
        ("text", "positive", "zero", "latent"),
        ("sample", "decode"),
        ("save",),
    ),
    FLUX,
    subject="cast",
)

QUANTIZE_VAE = Example(
    "FLUX.1 with its VAE in INT8",
    ("VAE", "in INT8 too", "FLUX.1"),
    "## The VAE in INT8 too\n\n**Quantize VAE** halves what the VAE's weights take. The slider "
    "shows one latent decoded by both: the plain VAE is not changed.\n\nIt does not help a decode "
    "that runs out of memory: activations fill it. Use VAE Decode (Tiled) for that.",
    {
        **flux_parts("a market hall in the rain, neon signs, reflections on the floor"),
        "quantize": node("GQQuantizeModel", model=["load", 0], method="int8"),
        "quantize_vae": node("GQQuantizeVAE", vae=["vae", 0], method="int8", scope="decoder"),
        "sample": sample("quantize", "zero", steps=20),
        "decode_plain": decode("sample"),
        "decode": decode("sample", "quantize_vae"),
        "compare": node("ImageCompare", image_a=["decode_plain", 0], image_b=["decode", 0]),
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
    subject="quantize_vae",
)

QUANTIZE_TEXT_ENCODER = Example(
    "FLUX.1 with its text encoders in INT8",
    ("T5", "in INT8 too", "FLUX.1"),
    "## The text encoders in INT8 too\n\n**Quantize Text Encoder** plans each encoder of a CLIP on "
    "its own: here the T5 is quantized and CLIP-L, small and sensitive, is kept. The report says "
    "so, encoder by encoder.\n\nIt saves memory, not time: ComfyUI computes text encoders in full "
    "precision.",
    {
        **flux_parts("a botanist's desk, pressed flowers, handwritten labels, soft daylight"),
        "text": text("quantize_clip", "a botanist's desk, pressed flowers, soft daylight"),
        "quantize": node("GQQuantizeModel", model=["load", 0], method="int8"),
        "quantize_clip": node("GQQuantizeTextEncoder", clip=["clip", 0], method="int8"),
        "report": node("PreviewAny", source=["quantize_clip", 1]),
        "sample": sample("quantize", "zero", steps=20),
        "decode": decode("sample"),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="int8-text-encoder"),
    },
    (
        ("note", "load", "clip", "vae"),
        ("quantize_clip", "quantize"),
        ("report", "text", "positive", "zero", "latent"),
        ("sample", "decode"),
        ("save",),
    ),
    FLUX,
    subject="quantize_clip",
)

FP8_CAPABILITY_CHECK = Example(
    "Which method for this machine",
    ("Check", "what this machine runs", "any model"),
    "## What should I use on this machine?\n\n**Capability Check** tries every method on your "
    "device. Read the report: native, emulated, fallback or refused, why, and what helps.\n\n"
    "The benchmark measures the layers of the connected model for a few seconds. Without a model "
    "the node runs alone.",
    {
        "load": node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
        "check": node("GQFP8CapabilityCheck", model=["load", 0], benchmark=True),
        "method": node("PreviewAny", source=["check", 1]),
        "report": node("PreviewAny", source=["check", 2]),
    },
    (("note", "load"), ("check",), ("method", "report")),
    FLUX,
    subject="check",
)

SAVE_AND_LOAD = Example(
    "Quantize once, save and load",
    ("Once", "quantize, save, load", "FLUX.1"),
    "## Quantize once, load ever after\n\n1. Run. The upper row quantizes FLUX.1 and saves it to "
    "models/diffusion_models.\n2. Press **R**, so that the new file is listed.\n3. Mute the upper "
    "row (**Ctrl+M**) and unmute the lower one. It loads half the bytes and quantizes nothing.\n\n"
    "INT8 is saved in ComfyUI's own format: Load Diffusion Model reads it too, without this pack.",
    {
        "load": node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
        "quantize": node("GQQuantizeModel", model=["load", 0], method="int8"),
        "keep": node("GQSaveQuantizedModel", model=["quantize", 0], filename_prefix=_SAVED),
        "report": node("PreviewAny", source=["keep", 1]),
        "load_saved": node("GQLoadQuantizedModel", unet_name=f"{_SAVED}.safetensors"),
        **flux_encoded("a lighthouse keeper's kitchen, storm outside, oil lamp"),
        "sample": sample("load_saved", "zero", steps=20),
        "decode": decode("sample"),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="flux-int8"),
    },
    (("note",), ("load",), ("quantize",), ("keep",), ("report",)),
    FLUX,
    (
        ("load_saved", "clip", "vae"),
        ("text", "positive", "zero", "latent"),
        ("sample",),
        ("decode",),
        ("save",),
    ),
    subject="keep",
)

EXAMPLES = (
    FP8_WITH_LORA,
    WAN_INT8_LOW_VRAM,
    Z_IMAGE_INT4_SAVE,
    COMPARE_QUANTIZED,
    LAYERWISE_FP8_CAST,
    QUANTIZE_VAE,
    QUANTIZE_TEXT_ENCODER,
    FP8_CAPABILITY_CHECK,
    SAVE_AND_LOAD,
    FIT_A_SIZE,
    CALIBRATED_4_BIT,
    QUANTIZE_CONTROLNET,
)
