"""A saved model is the model: every bit of its weights, in a file that others can read."""

import pytest
import torch
from safetensors.torch import load_file

from graphquant.quant_core import QuantizationError
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
    ("mxfp8", "per-row", True),
    ("nvfp4", "per-row", True),
    ("int8-convrot", "per-row", True),
    ("w4a8", "per-row", True),
    ("w6a8", "per-row", True),
    ("nf4-double", "per-row", False),
    ("int3", "per-row", False),
    ("fp6", "per-row", False),
    ("fp8-block", "per-row", False),
    ("llm.int8", "per-row", False),
]


@pytest.mark.parametrize("method, granularity, stock", METHODS)
def test_a_saved_flux_samples_bit_by_bit_as_it_did(
    flux_patcher, latent, file, method, granularity, stock, quantize, save, load
):
    quantized = quantize(flux_patcher, method, granularity)
    expected = latent(quantized)
    save(quantized, file)
    names = load_file(file).keys()
    assert stock == any(name.endswith(".comfy_quant") for name in names)
    assert stock != all(name.startswith("graphquant.") for name in names)
    assert torch.equal(latent(load(file)[0]), expected)


@pytest.mark.parametrize("method", ["int8", "int4"])
def test_a_saved_wan_samples_bit_by_bit_as_it_did(
    wan_patcher, latent, file, method, quantize, save, load
):
    quantized = quantize(wan_patcher, method)
    expected = latent(quantized)
    save(quantized, file)
    assert torch.equal(latent(load(file)[0]), expected)


def test_a_saved_unet_samples_bit_by_bit_as_it_did(
    inference_mode, tmp_path, file, quantize, save, load
):
    import comfy.sd

    from lab.sampling import sample
    from lab.tiny_models import SD15, tiny_sd15

    patcher = comfy.sd.load_diffusion_model(str(tiny_sd15(tmp_path / SD15.file)))
    quantized = quantize(patcher)
    expected = sample(quantized, SD15, steps=1)
    save(quantized, file)
    assert torch.equal(sample(load(file)[0], SD15, steps=1), expected)


@pytest.mark.parametrize(
    "method, bound",
    [
        ("int8", 0.02),
        ("int8-dynamic", 0.02),
        ("fp8-weight-only", 0.005),
        ("mxfp8", 0.005),
        ("nvfp4", 0.005),
        ("int8-convrot", 0.005),
    ],
)
def test_comfyuis_own_loader_reads_a_stock_file(
    flux_patcher, latent, file, method, bound, quantize, save
):
    import comfy.sd

    quantized = quantize(flux_patcher, method, "per-tensor" if "fp8" in method else "per-row")
    save(quantized, file, file_format="stock")
    found = latent(comfy.sd.load_diffusion_model(str(file)))
    assert relative_l2(found, latent(quantized)) < bound


@pytest.mark.parametrize("method", ["int8-convrot", "w4a8", "w6a8"])
def test_comfyuis_own_loader_samples_a_rotated_file_bit_by_bit(
    flux_patcher, latent, file, method, quantize, save, monkeypatch
):
    """With comfy-kitchen's plain arithmetic in both; a GPU's products go there too."""
    import comfy.sd
    from comfy.quant_ops import QUANT_ALGOS, get_layout_class

    from graphquant.nodes.bridge.tensor import operators

    if method != "int8-convrot" and "asym_w4a8_int8" not in QUANT_ALGOS:
        pytest.skip("ComfyUI reads W4A8 from 0.31.0 on")
    if method == "w6a8" and not hasattr(get_layout_class("AsymW4A8Int8Layout"), "bits"):
        pytest.skip("comfy-kitchen reads W6A8 from 0.2.36 on")
    quantized = quantize(flux_patcher, method)
    report = save(quantized, file, file_format="stock")
    monkeypatch.setattr(operators, "is_native", lambda fmt, x: True)
    expected = latent(quantized)
    assert torch.equal(latent(comfy.sd.load_diffusion_model(str(file))), expected)
    needs = {"w4a8": "ComfyUI 0.31.0", "w6a8": "comfy-kitchen 0.2.36"}.get(method, "format stock")
    assert any(needs in fact for fact in report.facts)


def test_a_model_that_comfyui_would_not_recognise_by_its_halved_widths_is_saved_as_ours(
    inference_mode, tmp_path, file, quantize, save, load
):
    """It tells a UNet by the width of its cross-attention, which NVFP4 packs."""
    import comfy.sd
    from comfy_extras.nodes_model_merging import ModelSave

    from lab.sampling import sample
    from lab.tiny_models import SD15, tiny_sd15

    patcher = comfy.sd.load_diffusion_model(str(tiny_sd15(tmp_path / SD15.file)))
    quantized = quantize(patcher, "nvfp4")
    expected = sample(quantized, SD15, steps=1)
    with pytest.raises(QuantizationError, match="would not recognise this model in its own format"):
        save(quantized, file, file_format="stock")
    report = save(quantized, file)
    assert any("would not recognise this model in them" in fact for fact in report.facts)
    assert torch.equal(sample(load(file)[0], SD15, steps=1), expected)
    node = ModelSave()
    node.output_dir = str(tmp_path)
    node.save(quantized, "stock")
    stock = comfy.sd.load_diffusion_model(str(next(tmp_path.glob("stock*"))))
    assert relative_l2(sample(stock, SD15, steps=1), expected) < 1e-3


@pytest.mark.parametrize("method", ["int4", "fp8-weight-only"])
def test_comfyuis_own_loader_finds_no_model_in_a_file_of_ours(
    flux_patcher, file, method, quantize, save
):
    import comfy.sd

    save(quantize(flux_patcher, method), file)
    with pytest.raises(RuntimeError, match="Could not detect model type"):
        comfy.sd.load_diffusion_model(str(file))


def test_int8_as_a_file_of_ours_samples_bit_by_bit_as_it_did(
    flux_patcher, latent, file, quantize, save, load
):
    quantized = quantize(flux_patcher)
    save(quantized, file, file_format="graphquant")
    assert not any(name.endswith("comfy_quant") for name in load_file(file))
    assert torch.equal(latent(load(file)[0]), latent(quantized))


@pytest.mark.parametrize("method, name", [("int4", "int4"), ("fp8-weight-only", "float8_e4m3fn")])
def test_stock_is_refused_where_comfyui_has_no_such_format(
    flux_patcher, file, method, name, quantize, save
):
    with pytest.raises(QuantizationError) as error:
        save(quantize(flux_patcher, method), file, file_format="stock")
    message = str(error.value)
    assert message.startswith("ComfyUI has no format for 24 of 24 quantized layers")
    assert name in message and "granularity per-tensor" in message
    assert not file.exists()


def test_a_model_that_is_not_quantized_is_refused(flux_patcher, file, save):
    with pytest.raises(QuantizationError, match=r"No layer .* is quantized.*Quantize Model"):
        save(flux_patcher, file)


def test_an_unknown_file_format_is_refused(flux_patcher, file, quantize, save):
    with pytest.raises(QuantizationError, match="Unknown file format 'gguf'"):
        save(quantize(flux_patcher), file, file_format="gguf")


def test_cancelling_leaves_no_file_and_a_model_that_works(
    flux_patcher, latent, tmp_path, quantize, save
):
    import comfy.model_management

    quantized = quantize(flux_patcher)
    before = latent(quantized)
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        save(quantized, tmp_path / "saved.safetensors")
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(latent(quantized), before)


def test_the_report_counts_and_says_what_is_not_in_the_file(flux_patcher, file, quantize, save):
    quantized = quantize(flux_patcher).clone()
    quantized.add_object_patch("model_sampling", quantized.get_model_object("model_sampling"))
    report = save(quantized, file)
    text = report.to_markdown()
    assert text.startswith(f"Saved {file.name}: {file.stat().st_size / 2**20:.1f} MiB")
    assert "- warning: Not in the file: replaced objects" in text and "model_sampling" in text
    values = report.to_dict()
    assert "wrappers" not in text
    from graphquant.nodes.bridge.tensor.exact_steps import ExactSteps, with_exact_steps

    exact = with_exact_steps(quantized, ExactSteps.of("last 1"))
    text = save(exact, file).to_markdown()
    assert "Not in the file: wrappers that other nodes set (graphquant.exact_steps)" in text
    assert values["quantized_layers"] == 24 and values["path"] == str(file)


def test_without_its_branch_svdquant_is_a_stock_file_that_comfyui_smooths(
    flux_patcher, latent, file, quantize, save, load
):
    """By its pre_quant_scale; as ours, it comes back bit by bit."""
    import comfy.sd

    quantized = quantize(flux_patcher, "svdquant-nvfp4", rank=0)
    for layer in quantized.model.diffusion_model.modules():
        params = getattr(getattr(layer, "weight", None), "_params", None)
        scale = getattr(params, "pre_quant_scale", None)
        if scale is not None:
            scale.copy_(torch.linspace(0.5, 2, len(scale)))
    expected = latent(quantized)
    save(quantized, file, file_format="stock")
    tensors = load_file(file)
    assert sum(name.endswith(".pre_quant_scale") for name in tensors) > 10
    assert torch.equal(latent(load(file)[0]), expected)
    assert relative_l2(latent(comfy.sd.load_diffusion_model(str(file))), expected) < 0.005
