"""Quantize VAE, executed as ComfyUI executes it, on VAEs that ComfyUI's loader recognised."""

import math

import pytest
import torch
from torch import nn

from graphquant.quant_core import UnsupportedMethodError
from graphquant.quant_core.planning.vae_rules import half_of
from lab.tiny_vaes import FLUX, LTX, SD, TAESD, TINY_VAES, WAN

pytestmark = pytest.mark.usefixtures("comfy")

# Layers in the encoder and the decoder half.
LAYERS = {SD: (32, 40), FLUX: (31, 39), TAESD: (35, 35), WAN: (32, 39), LTX: (13, 13)}
by_name = pytest.mark.parametrize("tiny", TINY_VAES, ids=lambda tiny: tiny.name)


def quantize(vae, method="int8", scope="decoder"):
    from graphquant.nodes.quantize_vae import GQQuantizeVAE

    output = GQQuantizeVAE.execute(vae, method, scope)
    quantized, text = output.result
    (report,) = output.ui["graphquant"]
    return quantized, text, report


def psnr(result, reference):
    """dB, of pictures in 0 to 1."""
    return -10 * math.log10((result - reference).double().square().mean().item())


def sqnr(result, reference):
    """dB: the reference's variance over the error's."""
    error = (result - reference).double().square().mean().item()
    return 10 * math.log10(reference.double().var(correction=0).item() / error)


@by_name
def test_a_decode_is_the_plain_one_at_40_db(load_vae, tiny):
    vae = load_vae(tiny)
    plain = vae.decode(tiny.latents())
    quantized, _, _ = quantize(vae)
    result = quantized.decode(tiny.latents())
    # As in photographs; were the picture flat or clipped, the figure would mean nothing.
    assert 0.15 < plain.std().item() < 0.3
    assert ((plain <= 0) | (plain >= 1)).float().mean().item() < 0.12
    assert 40 <= psnr(result, plain) < 60
    assert sqnr(result, plain) >= 28


@by_name
def test_an_encode_with_both_halves_quantized_is_close(load_vae, tiny):
    vae = load_vae(tiny)
    plain = vae.encode(tiny.images())
    quantized, _, _ = quantize(vae, scope="both")
    assert 28 <= sqnr(quantized.encode(tiny.images()), plain) < 60


@by_name
def test_the_input_is_bit_identical_before_and_after(load_vae, tiny):
    vae = load_vae(tiny)
    pictures, latents = vae.decode(tiny.latents()), vae.encode(tiny.images())
    state = {key: part.clone() for key, part in vae.get_sd().items()}
    size, attributes = vae.model_size(), dict(vars(vae))
    quantized, _, _ = quantize(vae, scope="both")
    quantized.decode(tiny.latents())
    assert torch.equal(vae.decode(tiny.latents()), pictures)
    assert torch.equal(vae.encode(tiny.images()), latents)
    assert vae.get_sd().keys() == state.keys()
    assert all(torch.equal(part, state[key]) for key, part in vae.get_sd().items())
    assert vae.model_size() == vae.patcher.model_size() == size
    assert all(value is attributes[name] for name, value in vars(vae).items())


@by_name
def test_every_layer_of_the_scope_is_quantized_and_counted(load_vae, tiny):
    vae = load_vae(tiny)
    encoder, decoder = LAYERS[tiny]
    for scope, count in (("encoder", encoder), ("decoder", decoder), ("both", encoder + decoder)):
        _, _, report = quantize(vae, scope=scope)
        done = [layer for layer in report["layers"] if layer["action"] == "quantize"]
        assert report["quantized_layers"] == len(done) == count, scope
        assert report["skipped_layers"] == encoder + decoder - count, scope


@by_name
def test_a_half_is_what_decoding_or_encoding_runs(load_vae, tiny):
    vae = load_vae(tiny)
    ran = set()
    for name, module in vae.first_stage_model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
            module.register_forward_pre_hook(lambda *_, name=name: ran.add(name))
    vae.decode(tiny.latents())
    decoded = ran.copy()
    ran.clear()
    vae.encode(tiny.images())
    assert {half_of(name) for name in decoded} == {"decoder"}
    assert {half_of(name) for name in ran} == {"encoder"}
    assert (len(ran), len(decoded)) == LAYERS[tiny]


@by_name
def test_the_other_half_is_not_touched(load_vae, tiny):
    vae = load_vae(tiny)
    latents, pictures = vae.encode(tiny.images()), vae.decode(tiny.latents())
    assert torch.equal(quantize(vae, scope="decoder")[0].encode(tiny.images()), latents)
    assert torch.equal(quantize(vae, scope="encoder")[0].decode(tiny.latents()), pictures)


@by_name
def test_sizes_are_true_and_half_of_sixteen_bits(load_vae, tiny):
    import comfy.model_management

    vae = load_vae(tiny)
    quantized, _, report = quantize(vae, scope="both")
    stored = comfy.model_management.module_size(quantized.first_stage_model)
    assert quantized.model_size() == quantized.patcher.model_size() == stored
    assert report["model_bytes_after"] == stored
    assert report["model_bytes_before"] == vae.model_size()
    share = report["quantized_bytes_after"] / (2 * report["quantized_elements"])
    assert share <= (0.51 if tiny in (SD, FLUX) else 0.52)  # the others are narrow: short rows


@by_name
def test_tiled_decoding_and_encoding_are_as_close(load_vae, tiny):
    vae = load_vae(tiny)
    quantized, _, _ = quantize(vae, scope="both")
    tile, pixels = max(tiny.latent[-1] // 2, 2), 32
    plain = vae.decode_tiled(tiny.latents(), tile_x=tile, tile_y=tile, overlap=1)
    tiled = quantized.decode_tiled(tiny.latents(), tile_x=tile, tile_y=tile, overlap=1)
    assert psnr(tiled, plain) >= 40
    plain = vae.encode_tiled(tiny.images(), tile_x=pixels, tile_y=pixels, overlap=8)
    tiled = quantized.encode_tiled(tiny.images(), tile_x=pixels, tile_y=pixels, overlap=8)
    assert sqnr(tiled, plain) >= 28


def test_a_tile_as_large_as_the_picture_decodes_the_picture(load_vae):
    quantized, _, _ = quantize(load_vae(FLUX))
    whole = quantized.decode(FLUX.latents())
    tiled = quantized.decode_tiled(FLUX.latents(), tile_x=32, tile_y=32, overlap=1)
    assert (tiled - whole).abs().max().item() < 1e-5


def test_a_single_frame_takes_the_short_cut_of_a_causal_convolution(load_vae):
    """There ComfyUI slices the Conv3d weight instead of padding the frames."""
    vae = load_vae(WAN)
    latent = WAN.latents()[:, :, :1]
    quantized, _, _ = quantize(vae, scope="both")
    assert psnr(quantized.decode(latent), vae.decode(latent)) >= 40


def test_none_gives_the_same_object_back(load_vae):
    vae = load_vae(TAESD)
    same, text, report = quantize(vae, "none")
    assert same is vae
    assert report["quantized_layers"] == 0 and text.startswith("none: 0 of 0 layers")


def test_quantizing_twice_gives_the_quantized_vae_back(load_vae):
    once, _, _ = quantize(load_vae(TAESD), scope="both")
    twice, _, report = quantize(once, scope="both")
    assert twice is once
    assert report["method"] == "already_quantized"


def test_the_halves_can_be_quantized_one_after_the_other(load_vae):
    vae = load_vae(TAESD)
    both, _, _ = quantize(vae, scope="both")
    decoder, _, _ = quantize(vae)
    steps, _, report = quantize(decoder, scope="encoder")
    assert torch.equal(steps.decode(TAESD.latents()), both.decode(TAESD.latents()))
    assert torch.equal(steps.encode(TAESD.images()), both.encode(TAESD.images()))
    assert steps.model_size() == both.model_size() < decoder.model_size()
    assert report["quantized_layers"] == 35 and type(steps) is type(decoder)


@pytest.mark.parametrize("method", ["fp8-dynamic", "fp8-weight-only", "fp8", "int4", "int8dq"])
def test_a_method_without_convolutions_is_refused_in_one_sentence(load_vae, method):
    with pytest.raises(UnsupportedMethodError, match=r"^A VAE cannot .*, because .*\. Choose int8"):
        quantize(load_vae(TAESD), method)


def test_an_invalid_vae_is_reported_as_comfyui_does(comfy):
    import comfy.sd

    with pytest.raises(RuntimeError, match="VAE is invalid"):
        quantize(comfy.sd.VAE(sd={"no": torch.zeros(1)}))


def test_the_report_tells_what_it_saves_and_what_it_does_not(load_vae):
    _, text, report = quantize(load_vae(SD))
    assert text.startswith("int8: 40 of 72 layers quantized, 177.6 -> ")
    assert "dequantize + convolution" in text
    assert "not its activations" in text and "work in tiles" in text
    assert "kept: 32 x encoder half, scope is decoder" in text
    assert report["component_type"] == "vae"
