"""Quantize Model's requantize: what is quantized already, rounded anew, on the real ComfyUI."""

from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file

from lab.foreign_files import convrot, gguf_file, is_linear, marker, modelopt_fp8, nvfp4
from lab.foreign_layers import put_bitsandbytes, put_ggml
from lab.sampling import relative_l2

pytestmark = pytest.mark.usefixtures("comfy")

LAYER = "double_blocks.0.img_attn.qkv"
LINEARS = 32  # of the blocks: what the writers quantize
TAKEN = 28  # of them, those that the preset does not keep


def execute(model, method, **options):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    return GQQuantizeModel.execute(model=model, method=method, **options)


def report_of(output):
    return output.ui["graphquant"][0]


def stock(path, **options):
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(path), model_options=options)


def scaled_fp8(file, path, load):
    modelopt_fp8(load_file(file), path)
    tensors = load_file(path)
    marker = torch.frombuffer(bytearray(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    for name in [name for name in tensors if name.endswith("weight_scale")]:
        tensors[name.replace("weight_scale", "comfy_quant")] = marker.clone()
    save_file(tensors, path)
    return stock(path)


def plain_fp8(file, path, load):
    return stock(file, dtype=torch.float8_e4m3fn)


def int8_convrot(file, path, load):
    convrot(load_file(file), path)
    return stock(path)


def stock_nvfp4(file, path, load):
    nvfp4(load_file(file), path)
    return stock(path)


def mixed(file, path, load):
    """A file as mixed ones are: NVFP4 in the double blocks, scaled FP8 in the first single block,
    all else in bfloat16."""
    tensors, others = load_file(file), {}
    double = {name for name in tensors if is_linear(name, tensors[name]) and "double" in name}
    for name, tensor in tensors.items():
        if is_linear(name, tensor) and name.startswith("single_blocks.0."):
            layer, scale = name.removesuffix(".weight"), tensor.float().abs().max() / 448
            others[name] = (tensor.float() / scale).to(torch.float8_e4m3fn)
            others |= {f"{name}_scale": scale, f"{layer}.comfy_quant": marker("float8_e4m3fn")}
    nvfp4(tensors, path, lambda name, tensor: name in double, others)
    return stock(path)


def ours_gguf(file, path, load):
    gguf_file(load_file(file), path.with_suffix(".gguf"))
    return load(path.with_suffix(".gguf"))[0]


def pack_gguf(file, path, load):
    patcher = stock(file)
    put_ggml(patcher.model.diffusion_model)
    return patcher


def pack_bitsandbytes(file, path, load):
    patcher = stock(file)
    put_bitsandbytes(patcher.model.diffusion_model)
    return patcher


# How the MODEL comes; the method; the source in words; how far the latent may go from the source's.
KINDS = {
    "scaled fp8": (scaled_fp8, "int8", "TensorCoreFP8E4M3Layout", 0.02),
    "plain fp8": (plain_fp8, "int8-convrot", "float8_e4m3fn", 0.03),
    "int8 convrot": (int8_convrot, "nf4-fine", "TensorWiseINT8Layout", 0.13),
    "NVFP4": (stock_nvfp4, "int4", "TensorCoreNVFP4Layout", 0.13),
    "NVFP4, rotated": (stock_nvfp4, "w4a8", "TensorCoreNVFP4Layout", 0.13),
    "GGUF, loaded by us": (ours_gguf, "int8", "GGUF Q8_0", 0.02),
    "GGUF of ComfyUI-GGUF": (pack_gguf, "int4", "GGUF Q8_0", 0.13),
    "bitsandbytes NF4": (pack_bitsandbytes, "w4a8", "bitsandbytes NF4", 0.13),
}


@pytest.fixture
def source(tiny_flux_file, tmp_path, inference_mode, load):
    """``source(kind)``: a MODEL that is quantized already."""
    return lambda kind: KINDS[kind][0](tiny_flux_file, tmp_path / "source.safetensors", load)


@pytest.fixture
def load(comfy):
    from graphquant.nodes.bridge.loading.load_model import load_quantized_model

    return load_quantized_model


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_model_is_rounded_again_and_samples_like_itself(kind, source, sample):
    _, method, name, bound = KINDS[kind]
    model = source(kind)
    before = sample(model, steps=1)
    output = execute(model, method, requantize=True)
    report = report_of(output)
    sources = Counter(layer["source"] for layer in report["layers"] if layer["source"])
    (told, count), *others = sources.items()
    assert name in told and not others
    assert count >= TAKEN
    assert any("two roundings add up" in text for text in report["warnings"])
    assert f"{told} to " in output[1]
    assert 1e-4 < relative_l2(sample(output[0], steps=1), before) < bound
    assert report["model_bytes_after"] == output[0].model_size()
    assert torch.equal(sample(model, steps=1), before)


def test_off_as_it_is_by_default_nothing_is_done_and_the_remedy_is_said(source):
    model = source("int8 convrot")
    output = execute(model, "nf4-fine", include="*double_blocks*img_attn*")
    assert output[0] is model
    assert "set requantize" in output[1]


def test_of_a_mixed_model_what_is_better_stays(source, sample):
    model = source("int8 convrot")
    put_ggml(model.model.diffusion_model, "Q4_0", within="double_blocks")
    output = execute(model, "int8-convrot", requantize=True, preset="none")
    layers = {layer["name"]: layer for layer in report_of(output)["layers"]}
    four, eight, plain = LAYER, "single_blocks.0.linear2", "img_in"
    assert layers[four]["action"] == layers[eight]["action"] == "already quantized"
    assert "GGUF Q4_0, of fewer bits than int8" in layers[four]["reason"]
    assert "holds the same codes as int8" in layers[eight]["reason"]
    assert layers[plain]["action"] == "quantize" and layers[plain]["source"] is None
    assert not any("two roundings" in text for text in report_of(output)["warnings"])
    assert sample(output[0], steps=1).isfinite().all()


def test_of_a_mixed_file_each_layer_is_rounded_or_stays_by_its_own_bits(
    tiny_flux_file, tmp_path, inference_mode, sample
):
    model = mixed(tiny_flux_file, tmp_path / "mixed.safetensors", None)
    before = sample(model, steps=1)
    output = execute(model, "int8", requantize=True, preset="none")
    layers = {layer["name"]: layer for layer in report_of(output)["layers"]}
    four, eight, plain = LAYER, "single_blocks.0.linear2", "single_blocks.1.linear2"
    assert layers[four]["action"] == "already quantized"
    assert "TensorCoreNVFP4Layout, of fewer bits than int8" in layers[four]["reason"]
    assert layers[eight]["source"].endswith("TensorCoreFP8E4M3Layout")
    assert layers[plain]["action"] == "quantize" and layers[plain]["source"] is None
    weights = [each.model.diffusion_model.get_submodule(four).weight for each in (model, output[0])]
    assert torch.equal(*(weight._qdata for weight in weights))
    assert 1e-4 < relative_l2(sample(output[0], steps=1), before) < 0.03
    again = report_of(execute(model, "nf4-fine", requantize=True, preset="none"))
    sources = {layer["name"]: layer["source"] for layer in again["layers"]}
    assert sources[four] and sources[eight] and not sources[plain]


@pytest.mark.parametrize(
    "kind", ["NVFP4", "scaled fp8", "GGUF of ComfyUI-GGUF", "bitsandbytes NF4"]
)
def test_the_cache_gives_what_rounding_again_gave(kind, source, sample, tmp_path, monkeypatch):
    import folder_paths

    from graphquant.nodes.bridge.model import quantize_patcher as module

    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    rounded = []
    kept = module.quantize_plan
    monkeypatch.setattr(
        module, "quantize_plan", lambda plan, *a, **k: rounded.append(1) or kept(plan, *a, **k)
    )
    method = KINDS[kind][1]
    first = execute(source(kind), method, requantize=True, cache=True)
    assert "cache: wrote " in first[1] and "warning: cache" not in first[1]
    again = execute(source(kind), method, requantize=True, cache=True)
    assert "cache: read from " in again[1] and len(rounded) == 1
    assert torch.equal(sample(first[0], steps=1), sample(again[0], steps=1))
    assert report_of(again)["model_bytes_after"] == again[0].model_size()


def test_the_cache_tells_sources_of_other_numbers_apart(source, tmp_path, monkeypatch):
    """Beside the codes: a model without a file that is known, whose scales were changed."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    for scale in (1.0, 2.0):
        model = source("bitsandbytes NF4")
        layer = model.model.diffusion_model.get_submodule(LAYER)
        layer.weight.quant_state.state2.absmax *= scale
        output = execute(model, "w4a8", requantize=True, cache=True)
        assert "cache: wrote " in output[1], scale


def test_codes_without_a_known_scale_are_left_and_said(flux_patcher):
    layer = flux_patcher.model.diffusion_model.get_submodule(LAYER)
    codes = torch.ones(layer.weight.shape, dtype=torch.int8)
    layer.weight = torch.nn.Parameter(codes, requires_grad=False)
    layers = report_of(execute(flux_patcher, "int4", requantize=True))["layers"]
    (reason,) = [each["reason"] for each in layers if each["name"] == LAYER]
    assert reason == "already quantized: int8, which cannot be read here"


def test_what_the_preset_keeps_stays_quantized_as_it_was(source):
    layers = report_of(execute(source("plain fp8"), "int8", requantize=True))["layers"]
    kept = [each for each in layers if each["action"] == "already quantized"]
    assert kept and all("; preset flux" in each["reason"] for each in kept)


@pytest.mark.parametrize("kind", ["scaled fp8", "GGUF of ComfyUI-GGUF", "bitsandbytes NF4"])
def test_a_lora_before_or_after_and_a_save_go_with_it(kind, source, sample, load, tmp_path):
    from graphquant.nodes.bridge.saving.save_model import save_quantized_model

    method = KINDS[kind][1]
    model = source(kind)
    plain = execute(model, method, requantize=True)[0]
    lora = lora_of(model, f"diffusion_model.{LAYER}.weight")
    before = model.clone()
    before.add_patches(lora, 1.0)
    after = plain.clone()
    after.add_patches(lora, 1.0)
    once = sample(execute(before, method, requantize=True)[0], steps=1)
    base = sample(plain, steps=1)
    assert relative_l2(base, once) > 0.02
    assert relative_l2(sample(after, steps=1), once) < 0.5 * relative_l2(base, once)
    path = tmp_path / "saved.safetensors"
    save_quantized_model(plain, path)
    assert relative_l2(sample(load(path)[0], steps=1), base) < 1e-5


def lora_of(model, key):
    from comfy.weight_adapter import LoRAAdapter

    n, k = 768, 256
    generator = torch.Generator().manual_seed(3)
    up, down = (torch.randn(*s, generator=generator) * 0.2 for s in ((n, 4), (4, k)))
    return {key: LoRAAdapter(set(), (up, down, None, None, None, None))}


@pytest.mark.parametrize("method", ["int8", "int4", "int8-convrot"])
@pytest.mark.parametrize("foreign", [False, True], ids=["fp8", "a pack's own class"])
def test_convolutions_of_an_fp8_unet_are_rounded_again_too(
    method, foreign, tmp_path, inference_mode, load
):
    import comfy.ops

    from graphquant.nodes.bridge.saving.save_model import save_quantized_model
    from lab.sampling import sample
    from lab.tiny_models import SD15, tiny_sd15

    class Packs(comfy.ops.manual_cast.Conv2d):
        """As a pack's class that reads weights in its own way."""

    model = stock(tiny_sd15(tmp_path / SD15.file), dtype=torch.float8_e4m3fn)
    for layer in model.model.diffusion_model.modules() if foreign else ():
        if isinstance(layer, torch.nn.Conv2d):
            layer.__class__ = Packs
    before = sample(model, SD15, steps=1)
    options = {} if method == "int8" else {"convolutions": "quantize"}  # int8 takes them by itself
    output = execute(model, method, requantize=True, **options)
    report = report_of(output)
    again = {layer["kind"] for layer in report["layers"] if layer["source"]}
    assert again == {"Linear", "Conv2d"}
    found = sample(output[0], SD15, steps=1)
    assert 1e-4 < relative_l2(found, before) < (0.1 if method == "int4" else 0.02)
    assert report["model_bytes_after"] == output[0].model_size()
    layer = output[0].model.diffusion_model.input_blocks[1][0].in_layers[2]
    assert not isinstance(layer, Packs)
    path = tmp_path / "saved.safetensors"
    save_quantized_model(output[0], path)
    assert torch.equal(sample(load(path)[0], SD15, steps=1), found)
