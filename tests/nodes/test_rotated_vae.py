"""Quantize VAE by int8-convrot, on a small VAE whose decoder is a transformer (MiniMax H3)."""

from inspect import signature

import pytest
import torch

from graphquant.quant_core.errors import NothingToQuantizeError
from lab.sampling import relative_l2
from lab.tiny_vaes import MINIMAX, SD, sizes_of_minimax, weights

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.usefixtures("inference_mode")]


@pytest.fixture
def minimax(comfy):
    import comfy.sd

    with sizes_of_minimax():
        yield comfy.sd.VAE(sd=weights(MINIMAX))


def quantize(vae, method="int8-convrot", **options):
    from graphquant.nodes.quantize_vae import GQQuantizeVAE

    output = GQQuantizeVAE.execute(vae, method, **options)
    return output[0], output.ui["graphquant"][0]


def test_the_linears_of_the_blocks_are_rotated_and_all_else_stays(minimax):
    plain = minimax.decode(MINIMAX.latents())
    quantized, report = quantize(minimax)
    layers = {layer["name"]: layer for layer in report["layers"]}
    taken = {name for name, layer in layers.items() if layer["action"] == "quantize"}
    assert len(taken) == 8
    assert all(name.startswith("decoder.transformer_blocks.") for name in taken)
    formats = {layers[name]["format"] for name in taken}
    assert formats == {"int8 per-row, rotated by 256, int8 activations"}
    for name in ("decoder.x_embedder", "decoder.proj_out", "post_quant_conv"):
        assert layers[name]["action"] == "keep" and layers[name]["reason"]
    assert "int8 x int8" in report["kernel"]
    assert report["notes"] == []
    assert 1e-4 < relative_l2(quantized.decode(MINIMAX.latents()), plain) < 0.008
    assert torch.equal(minimax.decode(MINIMAX.latents()), plain)


def test_a_saved_decoder_is_what_this_comfyui_loads(minimax):
    """From 0.31 on its own save node writes codes, and its loader computes with them; before, plain
    weights."""
    import comfy.sd

    quantized, _ = quantize(minimax)
    latent = quantized.decode(MINIMAX.latents())
    saved = quantized.get_sd()
    reads = "operations" in signature(type(minimax.first_stage_model).__init__).parameters
    markers = [name for name in saved if name.endswith(".comfy_quant")]
    assert len(markers) == (8 if reads else 0)
    assert set(minimax.get_sd()) <= set(saved)
    codes = saved["decoder.transformer_blocks.0.ff.w1.weight"]
    assert codes.dtype == (torch.int8 if reads else torch.float32)
    loaded = comfy.sd.VAE(sd=dict(saved))
    assert relative_l2(loaded.decode(MINIMAX.latents()), latent) < 0.004


def test_a_vae_of_convolutions_has_nothing_to_rotate(load_vae):
    with pytest.raises(NothingToQuantizeError, match="INT8 ConvRot is for Linear layers"):
        quantize(load_vae(SD))
