"""A saved model is the model: every bit of its weights, and nothing besides."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from graphquant.quant_core import QuantizationError, plan_component
from graphquant.quant_core.version import VERSION
from lab.sampling import relative_l2

pytestmark = pytest.mark.usefixtures("comfy")

# method, granularity, whether ComfyUI has the format
METHODS = [
    ("int8", "per-row", True),
    ("int8", "per-tensor", True),
    ("int8-dynamic", "per-row", True),
    ("fp8-weight-only", "per-tensor", True),
    ("fp8-weight-only", "per-row", False),
    ("int4", "per-row", False),
]
QUANTIZED, KEPT = "double_blocks.0.img_attn.qkv", "img_in"


def quantize(patcher, method="int8", granularity="per-row", **options):
    from graphquant.nodes.patching.patcher import quantize_patcher

    plan = plan_component(
        patcher.model.diffusion_model, method, granularity=granularity, preset="generic", **options
    )
    quantized, _ = quantize_patcher(
        patcher, {"diffusion_model.": plan}, compute_dtype=torch.float32
    )
    return quantized


def with_lora(patcher, layers=(QUANTIZED,), scale=0.1, seed=1):
    """A clone with a rank-4 LoRA on ``layers``, and the change of each layer's weight."""
    import comfy.lora

    generator = torch.Generator().manual_seed(seed)
    lora, deltas = {}, {}
    for layer in layers:
        n, k = patcher.model.diffusion_model.get_submodule(layer).weight.shape
        up = torch.randn(n, 4, generator=generator) * scale
        down = torch.randn(4, k, generator=generator) * 0.1
        lora[f"diffusion_model.{layer}.lora_up.weight"] = up
        lora[f"diffusion_model.{layer}.lora_down.weight"] = down
        deltas[layer] = up @ down
    patched = patcher.clone()
    keys = comfy.lora.model_lora_keys_unet(patcher.model, {})
    assert patched.add_patches(comfy.lora.load_lora(lora, keys))
    return patched, deltas


def save(patcher, path, **options):
    from graphquant.nodes.patching.saving import save_quantized_model

    return save_quantized_model(patcher, path, **options)


def load(path):
    from graphquant.nodes.patching.loading import load_quantized_model

    return load_quantized_model(path)[0]


@pytest.fixture
def latent(sample):
    """One sampling step: what a wrong weight anywhere would change."""
    return lambda patcher: sample(patcher, steps=1)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "saved.safetensors"


@pytest.mark.parametrize("method, granularity, stock", METHODS)
def test_a_saved_flux_samples_bit_by_bit_as_it_did(
    flux_patcher, latent, file, method, granularity, stock
):
    quantized = quantize(flux_patcher, method, granularity)
    expected = latent(quantized)
    save(quantized, file)
    names = load_file(file).keys()
    assert stock == any(name.endswith(".comfy_quant") for name in names)
    assert stock != all(name.startswith("graphquant.") for name in names)
    assert torch.equal(latent(load(file)), expected)


@pytest.mark.parametrize("method", ["int8", "int4"])
def test_a_saved_wan_samples_bit_by_bit_as_it_did(wan_patcher, latent, file, method):
    quantized = quantize(wan_patcher, method)
    expected = latent(quantized)
    save(quantized, file)
    assert torch.equal(latent(load(file)), expected)


def test_a_saved_unet_samples_bit_by_bit_as_it_did(inference_mode, tmp_path, file):
    import comfy.sd

    from lab.sampling import sample
    from lab.tiny_models import SD15, tiny_sd15

    patcher = comfy.sd.load_diffusion_model(str(tiny_sd15(tmp_path / SD15.file)))
    quantized = quantize(patcher)
    expected = sample(quantized, SD15, steps=1)
    save(quantized, file)
    assert torch.equal(sample(load(file), SD15, steps=1), expected)


@pytest.mark.parametrize(
    "method, bound", [("int8", 0.02), ("int8-dynamic", 0.02), ("fp8-weight-only", 0.005)]
)
def test_comfyuis_own_loader_reads_a_stock_file(flux_patcher, latent, file, method, bound):
    import comfy.sd

    quantized = quantize(flux_patcher, method, "per-tensor" if "fp8" in method else "per-row")
    save(quantized, file, file_format="stock")
    found = latent(comfy.sd.load_diffusion_model(str(file)))
    assert relative_l2(found, latent(quantized)) < bound


@pytest.mark.parametrize("method", ["int4", "fp8-weight-only"])
def test_comfyuis_own_loader_finds_no_model_in_a_file_of_ours(flux_patcher, file, method):
    import comfy.sd

    save(quantize(flux_patcher, method), file)
    with pytest.raises(RuntimeError, match="Could not detect model type"):
        comfy.sd.load_diffusion_model(str(file))


def test_int8_as_a_file_of_ours_samples_bit_by_bit_as_it_did(flux_patcher, latent, file):
    quantized = quantize(flux_patcher)
    save(quantized, file, file_format="graphquant")
    assert not any(name.endswith("comfy_quant") for name in load_file(file))
    assert torch.equal(latent(load(file)), latent(quantized))


@pytest.mark.parametrize("method, name", [("int4", "int4"), ("fp8-weight-only", "float8_e4m3fn")])
def test_stock_is_refused_where_comfyui_has_no_such_format(flux_patcher, file, method, name):
    with pytest.raises(QuantizationError) as error:
        save(quantize(flux_patcher, method), file, file_format="stock")
    message = str(error.value)
    assert message.startswith("ComfyUI has no format for 24 of 24 quantized layers")
    assert name in message and "granularity per-tensor" in message
    assert not file.exists()


def test_a_model_that_is_not_quantized_is_refused(flux_patcher, file):
    with pytest.raises(QuantizationError, match=r"No layer .* is quantized.*Quantize Model"):
        save(flux_patcher, file)


def test_an_unknown_file_format_is_refused(flux_patcher, file):
    with pytest.raises(QuantizationError, match="Unknown file format 'gguf'"):
        save(quantize(flux_patcher), file, file_format="gguf")


def test_weights_that_are_kept_are_the_originals_bit_by_bit(flux_patcher, tiny_flux_file, file):
    report = save(quantize(flux_patcher), file)
    original, saved = load_file(tiny_flux_file), load_file(file)
    kept = original.keys() & {name for name, t in saved.items() if t.dtype == torch.bfloat16}
    assert len(kept) == len(original) - 24
    assert all(torch.equal(saved[name], original[name]) for name in kept)
    assert any(f"{len(kept)} unquantized tensors are held as float32" in f for f in report.facts)


def test_a_float32_weight_that_bfloat16_can_not_hold_stays_float32(flux_patcher, file):
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


def fully_loaded(patcher):
    import comfy.model_management

    comfy.model_management.load_models_gpu([patcher])


def partly_loaded(patcher):
    patcher.patch_model(torch.device("cpu"), lowvram_model_memory=3_000_000)
    assert patcher.model.model_lowvram


def loaded_with_another_lora(patcher):
    other, _ = with_lora(patcher, seed=2)
    fully_loaded(other)
    loaded_with_another_lora.alive = other


@pytest.mark.parametrize("state", [fully_loaded, partly_loaded, loaded_with_another_lora])
@pytest.mark.parametrize("method", ["int8", "int4"])
def test_a_loaded_model_saves_the_same_bytes(flux_patcher, tmp_path, method, state):
    quantized = quantize(flux_patcher, method)
    patched, _ = with_lora(quantized, (QUANTIZED, KEPT))
    for name, patcher in (("plain", quantized), ("lora", patched)):
        save(patcher, tmp_path / f"{name}.safetensors")
        state(patcher)
        save(patcher, tmp_path / f"{name}-loaded.safetensors")
    for name in ("plain", "lora"):
        resting = (tmp_path / f"{name}.safetensors").read_bytes()
        assert resting == (tmp_path / f"{name}-loaded.safetensors").read_bytes()


@pytest.mark.parametrize("method", ["int8", "int4", "fp8-weight-only"])
def test_a_lora_is_baked_into_quantized_and_kept_weights(flux_patcher, file, method):
    quantized = quantize(flux_patcher, method)
    patched, deltas = with_lora(quantized, (QUANTIZED, KEPT))
    report = save(patched, file)
    loaded = load(file).model.diffusion_model
    for layer, bound in ((QUANTIZED, 0.11 if method == "int4" else 0.03), (KEPT, 0.004)):
        before = quantized.model.diffusion_model.get_submodule(layer).weight.dequantize().float()
        exact = before + deltas[layer]
        found = loaded.get_submodule(layer).weight.dequantize().float()
        assert relative_l2(found, exact) < bound
        assert relative_l2(before, exact) > 0.3
    facts = " ".join(report.facts)
    assert "LoRA on 1 quantized layers" in facts and "rounded a second time" in facts
    assert "LoRA on 1 unquantized tensors" in facts


def test_saving_changes_neither_the_model_nor_its_lora(flux_patcher, latent, file):
    patched, _ = with_lora(quantize(flux_patcher))
    before = latent(patched)
    save(patched, file)
    assert torch.equal(latent(patched), before)


def test_what_is_loaded_saves_the_same_bytes_again(flux_patcher, tmp_path):
    for method in ("int8", "int4"):
        save(quantize(flux_patcher, method), tmp_path / "first.safetensors", overwrite=True)
        save(load(tmp_path / "first.safetensors"), tmp_path / "again.safetensors", overwrite=True)
        first, again = (tmp_path / f"{n}.safetensors" for n in ("first", "again"))
        assert first.read_bytes() == again.read_bytes()


def test_the_metadata_say_what_was_done_to_what(flux_patcher, tiny_flux_file, file):
    import hashlib

    save(quantize(flux_patcher, "int8", exclude="double_blocks.1"), file)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    assert metadata["graphquant.method"] == "int8"
    assert metadata["graphquant.preset"] == "generic"
    assert metadata["graphquant.version"] == VERSION
    assert metadata["graphquant.source"] == tiny_flux_file.name
    digest = hashlib.sha256(tiny_flux_file.read_bytes()).hexdigest()
    assert metadata["graphquant.source_sha256"] == digest
    kept = json.loads(metadata["graphquant.keep"])
    assert "double_blocks.1.img_attn.qkv" in kept["excluded by double_blocks.1"]
    layers = json.loads(metadata["_quantization_metadata"])["layers"]
    assert layers[QUANTIZED] == {"format": "int8_tensorwise"} and len(layers) == 16


def test_cancelling_leaves_no_file_and_a_model_that_works(flux_patcher, latent, tmp_path):
    import comfy.model_management

    quantized = quantize(flux_patcher)
    before = latent(quantized)
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        save(quantized, tmp_path / "saved.safetensors")
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(latent(quantized), before)


def test_an_error_in_the_middle_leaves_no_file(flux_patcher, tmp_path):
    quantized = quantize(flux_patcher)
    patched, _ = with_lora(quantized, ("single_blocks.3.linear2",), scale=float("nan"))
    with pytest.raises(QuantizationError, match=r"single_blocks\.3\.linear2\.weight is NaN"):
        save(patched, tmp_path / "saved.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_report_counts_and_says_what_is_not_in_the_file(flux_patcher, file):
    quantized = quantize(flux_patcher).clone()
    quantized.add_object_patch("model_sampling", quantized.get_model_object("model_sampling"))
    report = save(quantized, file)
    text = report.to_markdown()
    assert text.startswith(f"Saved {file.name}: {file.stat().st_size / 2**20:.1f} MiB")
    assert "- warning: Not in the file: replaced objects" in text and "model_sampling" in text
    values = report.to_dict()
    assert values["quantized_layers"] == 24 and values["path"] == str(file)


def test_a_model_that_comfyui_quantized_is_saved_as_it_is(flux_patcher, latent, tmp_path):
    import comfy.sd

    save(quantize(flux_patcher), tmp_path / "ours.safetensors")
    stock = comfy.sd.load_diffusion_model(str(tmp_path / "ours.safetensors"))
    save(stock, tmp_path / "stock.safetensors")
    again = comfy.sd.load_diffusion_model(str(tmp_path / "stock.safetensors"))
    ours, saved = (load_file(tmp_path / f"{n}.safetensors") for n in ("ours", "stock"))
    assert ours.keys() == saved.keys()
    assert all(torch.equal(t.float(), saved[n].float()) for n, t in ours.items())
    assert torch.equal(latent(again), latent(stock))
