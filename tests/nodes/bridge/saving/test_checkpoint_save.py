"""Stock's CheckpointSave of a quantized MODEL, CLIP and VAE writes one file that stock reads."""

import copy

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lab import tiny_clips, tiny_vaes
from lab.sampling import relative_l2, sample
from lab.tiny_models import SD15, tiny_sd15

pytestmark = pytest.mark.usefixtures("comfy", "inference_mode")

UNET_LAYER = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"
CLIP_LAYER = "clip_l.transformer.text_model.encoder.layers.0.self_attn.v_proj"


def load(file):
    """MODEL, CLIP and VAE as Load Checkpoint reads them, the text encoder being tiny."""
    import comfy.sd

    options = {"clip_l_model_config": copy.copy(tiny_clips.MODEL_OPTIONS["model_config"])}
    return comfy.sd.load_checkpoint_guess_config(str(file), te_model_options=options)[:3]


@pytest.fixture(scope="module")
def checkpoint(comfy, tmp_path_factory, vae_file):
    """A whole SD 1.5 file: tiny UNet, tiny CLIP-L, and the VAE, whose size its loader fixes."""
    folder = tmp_path_factory.mktemp("checkpoint")
    parts = {
        "model.diffusion_model.": load_file(tiny_sd15(folder / SD15.file)),
        "cond_stage_model.transformer.": tiny_clips.weights("clip_l"),
        "first_stage_model.": load_file(vae_file(tiny_vaes.SD)),
    }
    state = {
        prefix + name: weight.bfloat16()
        for prefix, part in parts.items()
        for name, weight in part.items()
    }
    save_file(state, folder / "checkpoint.safetensors")
    return folder / "checkpoint.safetensors"


def lora(model, clip):
    """A LoRA of rank 4 on one layer of each."""
    generator = torch.Generator().manual_seed(1)
    layers = {
        f"diffusion_model.{UNET_LAYER}": model.model.diffusion_model.get_submodule(UNET_LAYER),
        f"text_encoders.{CLIP_LAYER}": clip.cond_stage_model.get_submodule(CLIP_LAYER),
    }
    result = {}
    for name, layer in layers.items():
        n, k = layer.weight.shape
        result[f"{name}.lora_up.weight"] = torch.randn(n, 4, generator=generator) * 0.2
        result[f"{name}.lora_down.weight"] = torch.randn(4, k, generator=generator) * 0.2
    return result


def quantize(model, clip, vae, method):
    from graphquant.nodes.quantize_model import GQQuantizeModel
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder
    from graphquant.nodes.quantize_vae import GQQuantizeVAE

    return (
        GQQuantizeModel.execute(model=model, method=method)[0],
        GQQuantizeTextEncoder.execute(clip=clip, method=method, preset="generic")[0],
        GQQuantizeVAE.execute(vae=vae, method="int8")[0],
    )


def outputs(model, clip, vae):
    """What the three compute: a latent, a conditioning, a picture."""
    return (
        sample(model, SD15, steps=1),
        tiny_clips.encode(clip)[0],
        vae.decode(tiny_vaes.SD.latents()),
    )


def errors(found, expected):
    return [relative_l2(*pair) for pair in zip(found, expected, strict=True)]


def save(model, clip, vae, folder):
    from comfy_extras.nodes_model_merging import CheckpointSave

    node = CheckpointSave()
    node.output_dir = str(folder)
    node.save(model, clip, vae, "saved")
    (file,) = folder.glob("saved*.safetensors")
    return file


# int8 rounds a weight with its LoRA once more, and stock rounds its activations; int4, which stock
# does not read, is written dequantized.
@pytest.mark.parametrize("method, bound", [("int8", 0.02), ("int4", 1e-3)])
def test_a_whole_quantized_checkpoint_is_read_by_stock(checkpoint, tmp_path, method, bound):
    import comfy.sd

    plain = load(checkpoint)
    model, clip, vae = quantize(*plain, method)
    before = outputs(model, clip, vae)
    model, clip = comfy.sd.load_lora_for_models(model, clip, lora(model, clip), 1.0, 1.0)
    expected = outputs(model, clip, vae)
    assert min(errors(before[:2], expected[:2])) > 0.04  # the LoRA counts
    assert relative_l2(plain[2].decode(tiny_vaes.SD.latents()), expected[2]) > 1e-3
    file = save(model, clip, vae, tmp_path)
    model_error, clip_error, vae_error = errors(outputs(*load(file)), expected)
    assert model_error < bound
    assert clip_error < 1e-3 and vae_error < 1e-3  # as CLIPSave and VAESave: plain weights
    with safe_open(file, "pt") as opened:
        dtypes = {opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
    assert ("I8" in dtypes) == (method == "int8")
