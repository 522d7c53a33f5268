"""Patches that widen a weight after it was quantized: FLUX Depth and Canny LoRAs, IC-Light."""

import pytest
import torch
from torch.nn.functional import pad

LAYER = "double_blocks.0.img_attn.proj"
KEY = f"diffusion_model.{LAYER}.weight"
ADDED = 128


@pytest.fixture
def widen(comfy):
    """``widen(patcher, kind)`` -> a clone whose patch adds ADDED input columns, the change."""
    from comfy.weight_adapter import LoRAAdapter

    def run(patcher, kind, strength=1.0):
        n, k = patcher.model.get_submodule(KEY.removesuffix(".weight")).weight.shape
        generator = torch.Generator().manual_seed(1)
        up = torch.randn(n, 4, generator=generator) * 0.1
        down = torch.randn(4, k + ADDED, generator=generator) * 0.1
        patch = {
            "reshape_weight": LoRAAdapter(set(), (up, down, 4.0, None, None, [n, k + ADDED])),
            "pad_weight": ("diff", (up @ down, {"pad_weight": True})),
        }[kind]
        patched = patcher.clone()
        assert patched.add_patches({KEY: patch}, strength)
        return patched, strength * up @ down

    return run


def loaded_weight(patcher, memory=None):

    patcher.load(torch.device("cpu"), lowvram_model_memory=memory or 0, full_load=memory is None)
    return patcher.model.get_submodule(KEY.removesuffix(".weight"))


@pytest.mark.parametrize("kind", ["reshape_weight", "pad_weight"])
@pytest.mark.parametrize("method", ["int8", "fp8-weight-only", "fp8-dynamic", "int4", "nf4"])
def test_a_widened_weight_is_the_padded_one_and_the_change(
    flux_patcher, quantize, widen, method, kind
):
    quantized = quantize(flux_patcher, method)
    plain = quantized.model.get_submodule(KEY.removesuffix(".weight")).weight.dequantize()
    patched, change = widen(quantized, kind)
    expected = pad(plain, (0, ADDED)) + change
    layer = loaded_weight(patched)
    found = layer.state_dict()["weight"].float()
    assert (found - expected).norm() < 0.15 * expected.norm()
    x = torch.randn(3, expected.shape[1])
    assert layer(x).shape == (3, len(expected))
    patched.detach()
    assert torch.equal(layer.weight.dequantize(), plain)


def test_strength_zero_widens_with_nothing(flux_patcher, quantize, widen):
    patched, _ = widen(quantize(flux_patcher), "pad_weight", strength=0.0)
    layer = loaded_weight(patched)
    assert layer.weight.dequantize()[:, -ADDED:].abs().max() == 0


@pytest.mark.parametrize("kind", ["reshape_weight", "pad_weight"])
def test_a_layer_that_is_not_loaded_computes_the_same(flux_patcher, quantize, widen, kind):
    quantized = quantize(flux_patcher)
    plain = quantized.model.get_submodule(KEY.removesuffix(".weight")).weight.dequantize()
    patched, change = widen(quantized, kind)
    layer = loaded_weight(patched, memory=1)
    expected = pad(plain, (0, ADDED)) + change
    x = torch.randn(3, expected.shape[1])
    y = layer(x) - (0 if layer.bias is None else layer.bias)
    assert torch.allclose(y, x @ expected.T, atol=1e-2)


def test_a_width_that_the_format_does_not_have_stays_a_plain_weight(flux_patcher, quantize):
    quantized = quantize(flux_patcher, "int4")
    plain = quantized.model.get_submodule(KEY.removesuffix(".weight")).weight.dequantize()
    patched = quantized.clone()
    change = torch.randn(len(plain), plain.shape[1] + 3) * 0.01
    assert patched.add_patches({KEY: ("diff", (change, {"pad_weight": True}))})
    layer = loaded_weight(patched)
    assert torch.allclose(layer.weight.float(), pad(plain, (0, 3)) + change, atol=1e-3)
    patched.detach()
    assert torch.equal(layer.weight.dequantize(), plain)


@pytest.mark.parametrize("storage", ["float8_e4m3fn", "float8_e5m2"])
def test_the_first_convolution_of_a_cast_unet_is_widened(inference_mode, tmp_path, storage):
    """IC-Light adds the latent of a foreground to the four channels of an SD 1.5."""
    import comfy.sd

    from graphquant.nodes.layerwise_fp8_cast import GQLayerwiseFP8Cast
    from lab.tiny_models import SD15, tiny_sd15

    patcher = comfy.sd.load_diffusion_model(str(tiny_sd15(tmp_path / SD15.file)))
    cast = GQLayerwiseFP8Cast.execute(model=patcher, storage_dtype=storage, skip_patterns="")[0]
    key = "diffusion_model.input_blocks.0.0.weight"
    layer = cast.model.get_submodule(key.removesuffix(".weight"))
    plain = layer.weight.dequantize()
    change = torch.randn(plain.shape[0], 8, 3, 3) * 0.1
    patched = cast.clone()
    assert patched.add_patches({key: ("diff", (change, {"pad_weight": True}))})
    patched.load(torch.device("cpu"), full_load=True)
    expected = pad(plain, (0, 0, 0, 0, 0, 4)) + change
    assert (layer.weight.dequantize() - expected).norm() < 0.1 * expected.norm()
    assert layer(torch.randn(1, 8, 8, 8)).shape == (1, len(plain), 8, 8)
    patched.detach()
    assert torch.equal(layer.weight.dequantize(), plain)


def test_a_widening_patch_before_the_node_is_quantized_with_the_weight(
    flux_patcher, quantize, widen
):
    weight = flux_patcher.model.get_submodule(KEY.removesuffix(".weight")).weight.float()
    patched, change = widen(flux_patcher, "reshape_weight")
    quantized = quantize(patched)
    found = quantized.model.get_submodule(KEY.removesuffix(".weight")).weight.dequantize()
    expected = pad(weight, (0, ADDED)) + change
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_a_file_of_it_that_comfyui_could_not_load_is_not_kept(
    flux_patcher, quantize, widen, tmp_path
):
    from graphquant.nodes.bridge.saving.save_model import save_quantized_model
    from graphquant.quant_core import QuantizationError

    patched, _ = widen(quantize(flux_patcher), "reshape_weight")
    with pytest.raises(QuantizationError, match=r"was not kept.*proj.weight"):
        save_quantized_model(patched, tmp_path / "saved.safetensors")
    assert not (tmp_path / "saved.safetensors").exists()
