"""Stock's own save nodes on quantized models: what they write is the model, its LoRA included."""

import pytest
import torch

from lab.sampling import relative_l2

LAYERS = ("double_blocks.0.img_attn.qkv", "single_blocks.0.linear1")

# method, granularity, whether stock's file stays quantized (None: where this ComfyUI has the
# format, which came with 0.31), and the bound for what stock computes from it: rounding a weight
# with its LoRA once more is as coarse as the format.
METHODS = [
    ("int8", "per-row", True, 0.02),
    ("int8-dynamic", "per-row", True, 0.02),
    ("fp8-weight-only", "per-row", False, 1e-3),
    ("fp8-weight-only", "per-tensor", True, 0.02),
    ("fp8-dynamic", "per-row", False, 0.05),
    ("int4", "per-row", False, 1e-3),
    ("nf4", "per-row", False, 1e-3),
    ("mxfp8", "per-row", True, 0.02),
    ("nvfp4", "per-row", True, 0.06),
    ("int8-convrot", "per-row", True, 0.02),
    ("w4a8", "per-row", None, 0.05),
    ("int3", "per-row", False, 1e-3),
    ("fp8-block", "per-row", False, 1e-3),
    ("llm.int8", "per-row", False, 0.02),
]


@pytest.fixture
def model_save(comfy, tmp_path):
    """``model_save(patcher)`` -> the file that ComfyUI's ModelSave node writes."""
    from comfy_extras.nodes_model_merging import ModelSave

    def run(patcher):
        node = ModelSave()
        node.output_dir = str(tmp_path)
        node.save(patcher, "saved")
        return next(tmp_path.glob("saved*.safetensors"))

    return run


def stock(file):
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(file))


@pytest.mark.parametrize("method, granularity, small, bound", METHODS)
def test_model_save_writes_what_stock_reads_with_the_lora(
    flux_patcher, latent, with_lora, model_save, quantize, method, granularity, small, bound
):
    quantized, _ = with_lora(quantize(flux_patcher, method, granularity), LAYERS, scale=0.3)
    expected = latent(quantized)
    plain = latent(quantize(flux_patcher, method, granularity))
    assert relative_l2(plain, expected) > 0.05  # the LoRA counts
    file = model_save(quantized)
    found = latent(stock(file))
    assert relative_l2(found, expected) < bound
    from comfy.quant_ops import QUANT_ALGOS

    dense, has_w4a8 = flux_patcher.model_size(), "asym_w4a8_int8" in QUANT_ALGOS
    assert (file.stat().st_size < 0.7 * dense) == (has_w4a8 if small is None else small)


@pytest.mark.parametrize("method", ["int8", "int4"])
@pytest.mark.parametrize("loaded", ["whole", "partly", "not"])
def test_the_lora_is_in_the_file_however_much_is_loaded(
    flux_patcher, latent, with_lora, quantize, tmp_path, method, loaded
):
    import comfy.utils

    quantized, _ = with_lora(quantize(flux_patcher, method), LAYERS, scale=0.3)
    expected = latent(quantized)
    quantized.detach()
    if loaded != "not":
        share = {"whole": 2.0, "partly": 0.5}[loaded]
        quantized.load(
            torch.device("cpu"), lowvram_model_memory=int(quantized.model_size() * share)
        )
    file = tmp_path / "saved.safetensors"
    comfy.utils.save_torch_file(quantized.state_dict_for_saving(), str(file))
    quantized.detach()
    assert relative_l2(latent(stock(file)), expected) < 0.02


def test_a_merge_of_quantized_models_is_saved_as_it_computes(
    flux_patcher, latent, with_lora, quantize, model_save
):
    from comfy_extras.nodes_model_merging import ModelMergeSimple

    one = quantize(flux_patcher, "int4")
    other, _ = with_lora(quantize(flux_patcher, "fp8-weight-only"), LAYERS, scale=0.3)
    merged = ModelMergeSimple().merge(one, other, 0.5)[0]
    expected = latent(merged)
    assert relative_l2(latent(stock(model_save(merged))), expected) < 1e-3


@pytest.mark.parametrize("scaled", [True, False])
def test_a_layerwise_cast_unet_is_saved_whole(inference_mode, tmp_path, model_save, scaled):
    import comfy.sd

    from graphquant.nodes.layerwise_fp8_cast import GQLayerwiseFP8Cast
    from lab.sampling import sample
    from lab.tiny_models import SD15, tiny_sd15

    patcher = comfy.sd.load_diffusion_model(str(tiny_sd15(tmp_path / SD15.file)))
    cast = GQLayerwiseFP8Cast.execute(model=patcher, storage_dtype="float8_e4m3fn", scaled=scaled)[
        0
    ]
    expected = sample(cast, SD15, steps=1)
    found = sample(stock(model_save(cast)), SD15, steps=1)
    assert relative_l2(found, expected) < 1e-3


def test_what_is_written_dequantized_is_said_once(flux_patcher, quantize, model_save, caplog):
    file = model_save(quantize(flux_patcher, "int4"))
    lines = [r.message for r in caplog.records if "Saved dequantized" in r.message]
    assert file.exists()
    assert len(lines) == 1
    assert "Save Quantized Model" in lines[0]


def test_a_lora_that_overflows_is_refused_before_a_byte_is_written(
    flux_patcher, with_lora, quantize, model_save, tmp_path
):
    from graphquant.quant_core import QuantizationError

    quantized, _ = with_lora(quantize(flux_patcher), LAYERS, scale=float("nan"))
    with pytest.raises(QuantizationError, match=r"linear1.weight is NaN or infinite"):
        model_save(quantized)
    assert not list(tmp_path.glob("saved*"))


@pytest.mark.parametrize("method", ["nf4", "int4", "nvfp4", "int3"])
def test_a_unet_of_any_packed_format_is_saved_as_stock_reads_it(
    inference_mode, tmp_path, quantize, save, load, model_save, method
):
    """Codes of some formats are one row of bytes: no shape to recognise a model by."""
    import comfy.sd

    from lab.sampling import sample
    from lab.tiny_models import SD15, tiny_sd15

    patcher = comfy.sd.load_diffusion_model(str(tiny_sd15(tmp_path / SD15.file)))
    quantized = quantize(patcher, method)
    expected = sample(quantized, SD15, steps=1)
    assert relative_l2(sample(stock(model_save(quantized)), SD15, steps=1), expected) < 1e-3
    save(quantized, tmp_path / "ours.safetensors")
    assert torch.equal(sample(load(tmp_path / "ours.safetensors")[0], SD15, steps=1), expected)
