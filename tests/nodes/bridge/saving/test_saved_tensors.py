"""What stands in a file does not depend on where the model is, and LoRAs are part of it."""

import pytest
import torch
from safetensors.torch import load_file

from graphquant.quant_core import QuantizationError
from lab.sampling import relative_l2

pytestmark = pytest.mark.usefixtures("comfy")

QUANTIZED, KEPT = "double_blocks.0.img_attn.qkv", "img_in"


def test_weights_that_are_kept_are_the_originals_bit_by_bit(
    flux_patcher, tiny_flux_file, file, quantize, save
):
    report = save(quantize(flux_patcher), file)
    original, saved = load_file(tiny_flux_file), load_file(file)
    kept = original.keys() & {name for name, t in saved.items() if t.dtype == torch.bfloat16}
    assert len(kept) == len(original) - 24
    assert all(torch.equal(saved[name], original[name]) for name in kept)
    assert any(f"{len(kept)} unquantized tensors are held as float32" in f for f in report.facts)


def test_a_float32_weight_that_bfloat16_can_not_hold_stays_float32(
    flux_patcher, file, quantize, save
):
    with torch.no_grad():
        bias = flux_patcher.model.diffusion_model.img_in.bias
        bias += 2.0**-20
        weight = flux_patcher.model.diffusion_model.img_in.weight
        weight.copy_(weight.half().float().mul_(1 + 2.0**-9).half().float())
    save(quantize(flux_patcher), file)
    saved = load_file(file)
    assert saved["img_in.bias"].dtype == torch.float32 and torch.equal(saved["img_in.bias"], bias)
    assert saved["img_in.weight"].dtype == torch.float16
    assert torch.equal(saved["img_in.weight"].float(), weight)


def load_fully(patcher):
    import comfy.model_management

    comfy.model_management.load_models_gpu([patcher])
    assert patcher.model.current_weight_patches_uuid == patcher.patches_uuid


def load_partly(patcher):
    patcher.patch_model(torch.device("cpu"), lowvram_model_memory=3_000_000)
    assert patcher.model.model_lowvram


@pytest.mark.parametrize("put", [load_fully, load_partly])
@pytest.mark.parametrize("method", ["int8", "int4"])
def test_a_loaded_model_saves_the_same_bytes(
    flux_patcher, tmp_path, method, put, quantize, save, with_lora
):
    patched, _ = with_lora(quantize(flux_patcher, method), (QUANTIZED, KEPT))
    save(patched, tmp_path / "resting.safetensors")
    put(patched)
    save(patched, tmp_path / "loaded.safetensors")
    resting, loaded = (tmp_path / f"{name}.safetensors" for name in ("resting", "loaded"))
    assert resting.read_bytes() == loaded.read_bytes()


def test_the_lora_of_a_loaded_clone_is_not_saved(flux_patcher, tmp_path, quantize, save, with_lora):
    quantized = quantize(flux_patcher)
    save(quantized, tmp_path / "alone.safetensors")
    clone, _ = with_lora(quantized, (QUANTIZED, KEPT))
    load_fully(clone)
    save(quantized, tmp_path / "beside.safetensors")
    alone, beside = (tmp_path / f"{name}.safetensors" for name in ("alone", "beside"))
    assert alone.read_bytes() == beside.read_bytes()


@pytest.mark.parametrize("method", ["int8", "int4", "fp8-weight-only"])
def test_a_lora_is_baked_into_quantized_and_kept_weights(
    flux_patcher, file, method, quantize, save, load, with_lora
):
    quantized = quantize(flux_patcher, method)
    patched, deltas = with_lora(quantized, (QUANTIZED, KEPT))
    report = save(patched, file)
    loaded = load(file)[0].model.diffusion_model
    for layer, bound in ((QUANTIZED, 0.11 if method == "int4" else 0.03), (KEPT, 0.004)):
        before = quantized.model.diffusion_model.get_submodule(layer).weight.dequantize().float()
        exact = before + deltas[layer]
        found = loaded.get_submodule(layer).weight.dequantize().float()
        assert relative_l2(found, exact) < bound
        assert relative_l2(before, exact) > 0.15
    facts = " ".join(report.facts)
    assert "LoRA on 1 quantized layers" in facts and "rounded a second time" in facts
    assert "LoRA on 1 unquantized tensors" in facts


def test_saving_changes_neither_the_model_nor_its_lora(
    flux_patcher, latent, file, quantize, save, with_lora
):
    patched, _ = with_lora(quantize(flux_patcher), [QUANTIZED])
    before = latent(patched)
    save(patched, file)
    assert torch.equal(latent(patched), before)


def test_an_error_in_the_middle_leaves_no_file(flux_patcher, tmp_path, quantize, save, with_lora):
    quantized = quantize(flux_patcher)
    patched, _ = with_lora(quantized, ("single_blocks.3.linear2",), scale=float("nan"))
    with pytest.raises(QuantizationError, match=r"single_blocks\.3\.linear2\.weight is NaN"):
        save(patched, tmp_path / "saved.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_comfyui_quantized_is_saved_as_it_is(flux_patcher, tmp_path, quantize, save):
    import comfy.sd

    save(quantize(flux_patcher), tmp_path / "ours.safetensors")
    stock = comfy.sd.load_diffusion_model(str(tmp_path / "ours.safetensors"))
    save(stock, tmp_path / "stock.safetensors")
    ours, saved = (load_file(tmp_path / f"{n}.safetensors") for n in ("ours", "stock"))
    assert ours.keys() == saved.keys()
    assert all(torch.equal(t.float(), saved[n].float()) for n, t in ours.items())


def test_a_lora_on_a_model_that_comfyui_quantized_is_baked_in(
    flux_patcher, tmp_path, quantize, save, with_lora
):
    import comfy.sd

    def load_stock():
        return comfy.sd.load_diffusion_model(str(tmp_path / "stock.safetensors"))

    def weight(patcher):
        return patcher.model.diffusion_model.get_submodule(QUANTIZED).weight.dequantize().float()

    save(quantize(flux_patcher), tmp_path / "stock.safetensors")
    patched, deltas = with_lora(load_stock(), [QUANTIZED])
    exact = weight(patched) + deltas[QUANTIZED]
    report = save(patched, tmp_path / "stock.safetensors", overwrite=True)
    assert relative_l2(weight(load_stock()), exact) < 0.01
    assert any("LoRA on 1 quantized layers" in fact for fact in report.facts)
