"""Quantize VAE as a user runs it: over the HTTP API of a real ComfyUI server."""

import math

import pytest
import torch
from safetensors.torch import save_file

from lab.sampling import relative_l2
from lab.server import PromptError
from lab.tiny_vaes import SD, WAN

by_name = pytest.mark.parametrize("tiny", [SD, WAN], ids=lambda tiny: tiny.name)


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def decode(name, vae, decoder="VAEDecode", **options):
    return {
        f"decode_{name}": node(decoder, samples=["latent", 0], vae=[vae, 0], **options),
        name: node("SaveImage", images=[f"decode_{name}", 0], filename_prefix=f"vae/{name}"),
    }


def encode(name, vae):
    return {
        f"encode_{name}": node("VAEEncode", pixels=["pixels", 0], vae=[vae, 0]),
        name: node("SaveLatent", samples=[f"encode_{name}", 0], filename_prefix=f"vae/{name}"),
    }


@pytest.fixture
def load(server, vae_file):
    """``load(tiny, **inputs)``: the nodes up to a plain and a quantized VAE, on the server."""

    def nodes(tiny, **inputs):
        vae_file(tiny)
        latent = {"latent_tensor": tiny.latents(), "latent_format_version_0": torch.tensor([])}
        (server.base / "input").mkdir(exist_ok=True)
        save_file(latent, server.base / "input" / f"{tiny.name}.latent")
        pixels = {"width": 32, "height": 32, "batch_size": tiny.pixels[0], "color": 0x4080C0}
        return {
            "load": node("VAELoader", vae_name=tiny.file),
            "quantize": node("GQQuantizeVAE", vae=["load", 0], method="int8", **inputs),
            "latent": node("LoadLatent", latent=f"{tiny.name}.latent"),
            "pixels": node("EmptyImage", **pixels),
        }

    return nodes


def psnr(result, reference):
    return -10 * math.log10((result - reference).square().mean().item())


@by_name
def test_both_branches_of_one_loader_decode(server, load, tiny):
    nodes = load(tiny)
    alone = server.pictures(server.run(nodes | decode("plain", "load")))["plain"]
    entry = server.run(nodes | decode("plain", "load") | decode("int8", "quantize"))
    shown = server.pictures(entry)
    assert torch.equal(shown["plain"], alone)
    assert 40 <= psnr(shown["int8"], alone) < 60
    (report,) = entry["outputs"]["quantize"]["graphquant"]
    assert report["quantized_layers"] == {SD: 40, WAN: 39}[tiny]
    server.forget()
    again = server.pictures(server.run(nodes | decode("plain", "load")))["plain"]
    assert torch.equal(again, alone)


@by_name
def test_both_branches_of_one_loader_encode(server, load, tiny):
    nodes = load(tiny, scope="both")
    alone = server.latents(server.run(nodes | encode("plain", "load")))["plain"]
    entry = server.run(nodes | encode("int8", "quantize") | encode("plain", "load"))
    latents = server.latents(entry)
    assert torch.equal(latents["plain"], alone)
    assert 1e-4 < relative_l2(latents["int8"], alone) < 0.05


def test_a_picture_goes_through_encoder_and_decoder(server, load):
    nodes = load(SD, scope="both")
    loop = {
        name: node("VAEDecode", samples=[f"encode_{vae}", 0], vae=[vae, 0])
        for name, vae in (("decode_plain", "load"), ("decode_int8", "quantize"))
    }
    loop |= {
        f"encode_{vae}": node("VAEEncode", pixels=["pixels", 0], vae=[vae, 0])
        for vae in ("load", "quantize")
    }
    loop |= {
        name: node("SaveImage", images=[f"decode_{name}", 0], filename_prefix=f"vae/{name}")
        for name in ("plain", "int8")
    }
    shown = server.pictures(server.run(nodes | loop))
    assert psnr(shown["int8"], shown["plain"]) >= 35


def test_tiled_decoding_gives_the_same_picture(server, load):
    tiles = {"tile_size": 64, "overlap": 32, "temporal_size": 64, "temporal_overlap": 8}
    prompt = load(SD) | decode("plain", "load", "VAEDecodeTiled", **tiles)
    prompt |= decode("int8", "quantize", "VAEDecodeTiled", **tiles)
    shown = server.pictures(server.run(prompt))
    assert psnr(shown["int8"], shown["plain"]) >= 40


def test_an_unknown_method_is_refused_before_anything_runs(server, load):
    prompt = load(SD) | decode("int8", "quantize")
    prompt["quantize"]["inputs"]["method"] = "fp8-dynamic"
    with pytest.raises(PromptError, match="Value not in list: method"):
        server.run(prompt)


def test_the_node_is_offered_with_its_tooltips(server):
    info = server.object_info("GQQuantizeVAE")
    assert info["display_name"] == "Quantize VAE (image and video decoder)"
    assert info["output"] == ["VAE", "STRING"]
    assert list(info["input"]["required"]) == ["vae", "method"]
    assert list(info["input"]["optional"]) == ["scope", "config"]
    inputs = info["input"]["required"] | info["input"]["optional"]
    assert all("tooltip" in options[1] for options in inputs.values())
    assert inputs["scope"][1]["default"] == "decoder"
