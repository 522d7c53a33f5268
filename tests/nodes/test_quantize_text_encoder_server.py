"""Quantize Text Encoder as a user runs it: over the HTTP API of a real ComfyUI server."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from lab import tiny_clips
from lab.sampling import relative_l2
from lab.server import PromptError
from lab.tiny_models import FLUX

LORA = "tiny_t5_lora.safetensors"
DUAL = ("LabDualClip", {"clip_l": tiny_clips.CLIP_L, "t5xxl": tiny_clips.T5XXL})
T5_BASE = ("CLIPLoader", {"clip_name": tiny_clips.T5_BASE, "type": "stable_audio"})


@pytest.fixture(scope="module")
def text_encoders(server):
    """A tiny CLIP-L and T5-XXL, and a LoRA for the latter, where the server looks for them."""
    models = server.models.parent
    tiny_clips.dual_clip_files(models / "text_encoders")
    (models / "loras").mkdir(exist_ok=True)
    save_file(tiny_clips.t5_lora(), models / "loras" / LORA)


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def encoded(clip, name):
    """Encode a prompt with the node ``clip`` and save the conditioning under ``name``."""
    return {
        f"text_{name}": node("CLIPTextEncode", clip=[clip, 0], text="a red fox in the snow"),
        f"save_{name}": node("LabSaveConditioning", conditioning=[f"text_{name}", 0], name=name),
    }


def workflow(loader, method="int8", **options):
    """One loaded CLIP into two prompts, one of them through the node."""
    class_type, inputs = loader
    return {
        "load": node(class_type, **inputs),
        "quantize": node("GQQuantizeTextEncoder", clip=["load", 0], method=method, **options),
        **encoded("load", "plain"),
        **encoded("quantize", "quantized"),
    }


def conditionings(server, entry):
    files = [
        server.base / "output" / output["conditioning"][0]
        for output in entry["outputs"].values()
        if "conditioning" in output
    ]
    return {path.stem: load_file(path)["conditioning"] for path in files}


def with_lora(clip):
    return node(
        "LoraLoader",
        model=["model", 0],
        clip=[clip, 0],
        lora_name=LORA,
        strength_model=1.0,
        strength_clip=1.0,
    )


def test_a_t5_of_real_size_goes_through_the_stock_loader(server):
    path = tiny_clips.t5_base_file(server.models.parent / "text_encoders")
    try:
        entry = server.run(workflow(T5_BASE))
        alone = workflow(T5_BASE)
        del alone["quantize"], alone["text_quantized"], alone["save_quantized"]
        server.forget()
        again = conditionings(server, server.run(alone))
    finally:
        server.forget()
        path.unlink()
    results = conditionings(server, entry)
    assert 1e-3 < relative_l2(results["quantized"], results["plain"]) <= 0.025
    assert torch.equal(again["plain"], results["plain"])
    (part,) = entry["outputs"]["quantize"]["graphquant"]
    assert (part["part"], part["preset"]) == ("t5base", "t5")
    assert (part["quantized_layers"], part["total_layers"]) == (61, 73)
    assert part["quantized_bytes_after"] / part["quantized_bytes_before"] <= 0.51


def test_a_dual_clip_is_reported_by_encoder(server, text_encoders):
    prompt = workflow(DUAL, "fp8-dynamic")
    prompt["report"] = node("PreviewAny", source=["quantize", 1])
    entry = server.run(prompt)
    results = conditionings(server, entry)
    assert 1e-3 < relative_l2(results["quantized"], results["plain"]) <= 0.06
    parts = entry["outputs"]["quantize"]["graphquant"]
    assert [(p["part"], p["quantized_layers"]) for p in parts] == [("clip_l", 0), ("t5xxl", 12)]
    text = entry["outputs"]["report"]["text"][0]
    assert "## clip_l" in text and "fp8-dynamic runs as fp8-weight-only" in text


def test_the_stock_lora_loader_works_before_and_after_the_node(server, text_encoders):
    prompt = {
        **workflow(DUAL),
        "model": node("UNETLoader", unet_name=FLUX.file, weight_dtype="default"),
        "lora": with_lora("load"),
        "lora_after": with_lora("quantize"),
        "quantize_after": node("GQQuantizeTextEncoder", clip=["lora", 1], method="int8"),
        **encoded("lora", "lora"),
        **encoded("lora_after", "after"),
        **encoded("quantize_after", "before"),
    }
    for name in ("lora", "after"):
        prompt[f"text_{name}"]["inputs"]["clip"][1] = 1  # LoraLoader's CLIP is its second output
    results = conditionings(server, server.run(prompt))
    assert relative_l2(results["lora"], results["plain"]) > 0.1
    assert relative_l2(results["before"], results["lora"]) <= 0.015
    exact = (results["lora"] - results["plain"]).flatten()
    effect = (results["after"] - results["quantized"]).flatten()
    assert torch.cosine_similarity(effect, exact, 0).item() > 0.99


def test_a_picture_is_sampled_from_a_quantized_prompt(server, text_encoders):
    def sampled(name):
        return {
            f"sample_{name}": node(
                "KSampler",
                model=["model", 0],
                positive=[f"text_{name}", 0],
                negative=[f"text_{name}", 0],
                latent_image=["empty", 0],
                seed=0,
                steps=4,
                cfg=1.0,
                sampler_name="euler",
                scheduler="simple",
                denoise=1.0,
            ),
            name: node("SaveLatent", samples=[f"sample_{name}", 0], filename_prefix=name),
        }

    prompt = {
        **workflow(DUAL),
        "model": node("UNETLoader", unet_name=FLUX.file, weight_dtype="default"),
        "empty": node("EmptySD3LatentImage", width=128, height=128, batch_size=1),
        **sampled("plain"),
        **sampled("quantized"),
    }
    latents = server.latents(server.run(prompt))
    assert 1e-5 < relative_l2(latents["quantized"], latents["plain"]) <= 0.02


def test_the_user_reads_why_nothing_is_left(server, text_encoders):
    with pytest.raises(PromptError) as error:
        server.run(workflow(DUAL, exclude="t5xxl"))
    first = str(error.value).splitlines()[0]
    assert "No layer is left to quantize: 27 of 27 are kept" in first
    assert first.endswith("Loosen include, exclude or preset.")


def test_the_node_describes_itself(server):
    info = server.object_info("GQQuantizeTextEncoder")
    assert info["display_name"] == "Quantize Text Encoder (CLIP, T5, Qwen)"
    assert info["category"] == "model/quantization"
    assert list(info["input"]["required"]) == ["clip", "method"]
    assert list(info["input"]["optional"]) == [
        "granularity",
        "preset",
        "include",
        "exclude",
        "compute_device",
        "compile_mode",
        "config",
        "size_gib",
        "stock_only",
        "compute",
    ]
    inputs = {**info["input"]["required"], **info["input"]["optional"]}
    assert all(len(options[1]["tooltip"]) > 20 for options in inputs.values())
    assert info["output_name"] == ["CLIP", "report"]
