"""A converted file is, tensor by tensor, what Quantize Model and Save make of the same model."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from graphquant.nodes.bridge.architecture.detected import preset_name
from graphquant.quant_core import observe, plan_component
from graphquant.quant_core.calibration import load_calibration, save_calibration
from graphquant.quant_core.conversion.convert import ANY_HARDWARE, convert
from lab.sampling import relative_l2

pytestmark = pytest.mark.usefixtures("comfy")

METHODS = [
    ("int8", "per-row"),
    ("int8", "per-tensor"),
    ("int8-dynamic", "per-row"),
    ("fp8-weight-only", "per-tensor"),
    ("fp8-dynamic", "per-row"),
    ("fp8-dynamic", "per-tensor"),
    ("int4", "per-row"),
    ("int4-dynamic", "per-row"),
    ("llm.int8", "per-row"),
    ("nf4-double", "per-row"),
    ("fp4", "per-row"),
    ("int3", "per-row"),
    ("fp6", "per-row"),
    ("fp8-block", "per-row"),
    ("mxfp8", "per-row"),
    ("nvfp4", "per-row"),
    ("int8-convrot", "per-row"),
    ("w4a8", "per-row"),
    ("w6a8", "per-row"),
    ("nf4-fine", "per-row"),
]


def contents(path):
    """Tensors by name, and the metadata, whose lists of layers have no order."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    for key in ("graphquant.keep", "graphquant.layers", "_quantization_metadata"):
        values = json.loads(metadata.get(key, "{}"))
        if key == "graphquant.keep":
            values = {reason: sorted(layers) for reason, layers in values.items()}
        metadata[key] = values
    return load_file(path), metadata


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        bits = (t.reshape(-1).view(torch.uint8) for t in (found[name], tensor))
        assert torch.equal(*bits), name


@pytest.fixture
def saved(quantize, save, file):
    """``saved(patcher, method, granularity)``: tensors and metadata of the node's file."""

    def run(patcher, method, granularity="per-row"):
        options = {"preset": preset_name(patcher.model) or "generic", "hardware": ANY_HARDWARE}
        save(quantize(patcher, method, granularity, **options), file)
        return contents(file)

    return run


@pytest.mark.parametrize("method, granularity", METHODS)
def test_a_converted_flux_is_the_nodes_file(
    flux_patcher, tiny_flux_file, tmp_path, saved, method, granularity
):
    tensors, metadata = saved(flux_patcher, method, granularity)
    done = convert(tiny_flux_file, tmp_path / "converted.safetensors", method, granularity)
    found, told = contents(done.target)
    assert_same(found, tensors)
    assert told == metadata


@pytest.mark.parametrize("method", ["int4", "int8-convrot"])
def test_a_calibration_of_the_graph_rounds_the_file_as_the_node_does(
    flux_patcher, tiny_flux_file, tmp_path, save, file, latent, method
):
    from graphquant.nodes.bridge.model.quantize_patcher import quantize_patcher

    model = flux_patcher.model.diffusion_model
    with observe(model, 160) as seen:
        latent(flux_patcher)
    save_calibration(seen.calibration, tmp_path / "rows.safetensors")
    plan = plan_component(model, method, preset="flux1", hardware=ANY_HARDWARE)
    quantized, reports = quantize_patcher(
        flux_patcher,
        {"diffusion_model.": plan},
        compute_dtype=torch.float32,
        calibration=seen.calibration,
    )
    save(quantized, file)
    calibration = load_calibration(tmp_path / "rows.safetensors")
    done = convert(tiny_flux_file, tmp_path / "a.safetensors", method, calibration=calibration)
    found, expected = contents(done.target)[0], contents(file)[0]
    # On a CPU ComfyUI loads biases in float32, and keeps there what a correction adds.
    assert_same(found, {name: t.to(found[name].dtype) for name, t in expected.items()})
    assert done.report.rounding == reports["diffusion_model."].rounding
    assert {each.way for each in done.report.rounding.values()} >= {"compensated"}


@pytest.mark.parametrize("method", ["int8", "int4"])
def test_a_converted_wan_is_the_nodes_file(wan_patcher, tiny_wan_file, tmp_path, saved, method):
    tensors, metadata = saved(wan_patcher, method)
    found, told = contents(convert(tiny_wan_file, tmp_path / "a.safetensors", method).target)
    assert_same(found, tensors)
    assert told == metadata


def test_a_converted_unet_is_the_nodes_file(inference_mode, tmp_path, saved):
    import comfy.sd

    from lab.tiny_models import SD15, tiny_sd15

    source = tiny_sd15(tmp_path / SD15.file)
    tensors, _ = saved(comfy.sd.load_diffusion_model(str(source)), "int8")
    assert_same(contents(convert(source, tmp_path / "a.safetensors", "int8").target)[0], tensors)


def as_checkpoint(source, target):
    """A whole checkpoint, with a text encoder's tensor and a VAE's beside the model."""
    tensors = {f"model.diffusion_model.{k}": v for k, v in load_file(source).items()}
    tensors["text_encoders.clip_l.transformer.text_model.encoder.weight"] = torch.rand(64, 64)
    tensors["vae.decoder.conv_in.weight"] = torch.rand(8, 4, 3, 3)
    save_file(tensors, target, {"modelspec.title": "both"})
    return tensors


@pytest.mark.parametrize("method", ["int8", "fp8-weight-only"])
def test_of_a_checkpoint_the_diffusion_model_alone_is_quantized_and_stock_reads_it(
    flux_patcher, tiny_flux_file, tmp_path, saved, latent, method
):
    import comfy.sd
    import comfy.utils

    source, target = tmp_path / "whole.safetensors", tmp_path / "converted.safetensors"
    original = as_checkpoint(tiny_flux_file, source)
    tensors, _ = saved(flux_patcher, method, "per-tensor")
    convert(source, target, method, "per-tensor")
    found, metadata = contents(target)
    expected = {f"model.diffusion_model.{k}": v for k, v in tensors.items()}
    others = {k: v for k, v in original.items() if not k.startswith("model.")}
    assert_same(found, expected | others)
    assert metadata["modelspec.title"] == "both"
    state, told = comfy.utils.load_torch_file(str(target), return_metadata=True)
    patcher, *_ = comfy.sd.load_state_dict_guess_config(
        state, output_vae=False, output_clip=False, metadata=told
    )
    expected = latent(comfy.sd.load_diffusion_model(str(tiny_flux_file)))
    assert relative_l2(latent(patcher), expected) < 0.05


@pytest.mark.parametrize("method", ["int8", "int4"])
def test_load_quantized_model_reads_a_converted_file_bit_by_bit(
    flux_patcher, tiny_flux_file, tmp_path, quantize, load, latent, method
):
    done = convert(tiny_flux_file, tmp_path / "a.safetensors", method)
    expected = latent(quantize(flux_patcher, method, preset="flux1"))
    assert torch.equal(latent(load(done.target)[0]), expected)


def test_load_quantized_model_reads_the_model_of_a_private_checkpoint(
    flux_patcher, tiny_flux_file, tmp_path, quantize, load, latent
):
    source = tmp_path / "whole.safetensors"
    as_checkpoint(tiny_flux_file, source)
    done = convert(source, tmp_path / "a.safetensors", "int4")
    expected = latent(quantize(flux_patcher, "int4", preset="flux1"))
    assert torch.equal(latent(load(done.target)[0]), expected)
