"""A quantized file becomes the model that was saved, or nothing at all."""

import json
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from graphquant.quant_core import QuantizationError
from lab.peak_memory import peak_memory
from lab.sampling import relative_l2

pytestmark = pytest.mark.usefixtures("comfy")

LAYER = "double_blocks.0.img_attn.qkv"


def metadata_of(path):
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


@pytest.fixture
def quantized(flux_patcher, quantize):
    return quantize(flux_patcher, "int4", preset="flux1")


@pytest.fixture
def file(quantized, save, tmp_path):
    """A saved INT4 model, in this pack's own format."""
    save(quantized, tmp_path / "saved.safetensors")
    return tmp_path / "saved.safetensors"


def shard(path, parts=3):
    """The file at ``path`` as shards beside it; returns their index."""
    tensors, metadata = load_file(path), metadata_of(path)
    weight_map = {}
    for number in range(parts):
        name = f"{path.stem}-{number + 1:05}-of-{parts:05}.safetensors"
        names = sorted(tensors)[number::parts]
        save_file({n: tensors[n] for n in names}, path.with_name(name), metadata)
        weight_map |= dict.fromkeys(names, name)
    index = path.with_name(f"{path.stem}.safetensors.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def test_shards_of_a_saved_model_load_bit_by_bit(quantized, file, latent, load):
    patcher, report = load(shard(file))
    assert torch.equal(latent(patcher), latent(quantized))
    assert "3 shards." in report.facts


def test_shards_of_a_plain_model_load_as_comfyui_loads_the_whole(
    flux_patcher, tiny_flux_file, tmp_path, latent, load
):
    copy = tmp_path / "plain.safetensors"
    copy.write_bytes(tiny_flux_file.read_bytes())
    patcher, _ = load(shard(copy))
    assert torch.equal(latent(patcher), latent(flux_patcher))


def test_a_plain_file_loads_as_comfyui_loads_it(flux_patcher, tiny_flux_file, latent, load):
    patcher, report = load(tiny_flux_file)
    assert torch.equal(latent(patcher), latent(flux_patcher))
    assert report.report.quantized_layers == 0 and report.report.kernel == "ComfyUI's own"


def test_a_plain_fp8_file_loads_as_comfyui_loads_it(tiny_flux_file, tmp_path, latent, load):
    import comfy.sd

    path = tmp_path / "fp8.safetensors"
    save_file({n: t.to(torch.float8_e4m3fn) for n, t in load_file(tiny_flux_file).items()}, path)
    with torch.inference_mode():
        patcher, report = load(path)
        assert torch.equal(latent(patcher), latent(comfy.sd.load_diffusion_model(str(path))))
    assert any("plain FP8" in fact for fact in report.facts)


@pytest.mark.parametrize("kind", ["scaled_fp8", "comfy_quant", "metadata"])
def test_a_scaled_fp8_file_of_any_kind_loads_as_comfyui_loads_it(
    flux_patcher, tiny_flux_file, tmp_path, latent, kind, load
):
    import comfy.sd

    tensors = load_file(tiny_flux_file)
    weight = tensors[f"{LAYER}.weight"].float()
    scale = weight.abs().max() / 448
    tensors[f"{LAYER}.weight"] = (weight / scale).to(torch.float8_e4m3fn)
    told = json.dumps({"format": "float8_e4m3fn"})
    metadata = {}
    if kind == "scaled_fp8":
        tensors |= {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
        tensors |= {f"{LAYER}.scale_weight": scale}
    else:
        tensors |= {f"{LAYER}.weight_scale": scale}
    if kind == "comfy_quant":
        mark = torch.frombuffer(bytearray(told.encode()), dtype=torch.uint8)
        tensors |= {f"{LAYER}.comfy_quant": mark}
    if kind == "metadata":
        layers = {LAYER: json.loads(told)}
        metadata = {"_quantization_metadata": json.dumps({"layers": layers})}
    save_file(tensors, tmp_path / "scaled.safetensors", metadata)
    patcher, report = load(tmp_path / "scaled.safetensors")
    stock = comfy.sd.load_diffusion_model(str(tmp_path / "scaled.safetensors"))
    assert torch.equal(latent(patcher), latent(stock))
    assert 0 < relative_l2(latent(patcher), latent(flux_patcher)) < 0.02
    assert any("1 layers of ComfyUI's float8_e4m3fn" in fact for fact in report.facts)


def test_a_stock_file_of_another_maker_keeps_comfyuis_layouts(
    flux_patcher, tmp_path, latent, quantize, save, load
):
    import comfy.sd

    path = tmp_path / "int8.safetensors"
    save(quantize(flux_patcher), path)
    save_file(load_file(path), path)  # its metadata are gone, its markers are not
    patcher, report = load(path)
    assert torch.equal(latent(patcher), latent(comfy.sd.load_diffusion_model(str(path))))
    assert any("24 layers of ComfyUI's int8_tensorwise" in fact for fact in report.facts)


def test_the_report_says_what_the_file_holds(file, load):
    _, report = load(file)
    text = report.to_markdown()
    assert text.startswith("Loaded saved.safetensors: ")
    assert "32 layers of int4 groups of 128, bit by bit as they were saved." in text
    assert "source: tiny_flux.safetensors" in text
    assert report.to_dict()["quantized_layers"] == 32
    assert report.to_dict()["method"] == "int4"


def test_a_lora_on_a_loaded_model_acts_and_comes_off_bit_exactly(
    file, quantized, latent, load, with_lora
):
    patcher, _ = load(file)
    before = latent(patcher)
    changed = [latent(with_lora(base, [LAYER])[0]) for base in (patcher, quantized)]
    assert torch.equal(*changed)
    assert relative_l2(changed[0], before) > 0.01
    assert torch.equal(latent(patcher), before)


def test_comfyui_can_rebuild_a_loaded_model_without_the_file(file, latent, load):
    patcher, _ = load(file)
    expected = latent(patcher)
    file.unlink()
    rebuild, arguments = patcher.cached_patcher_init
    assert torch.equal(latent(rebuild(*arguments, disable_dynamic=True)), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_loading_takes_the_memory_of_the_result_and_not_of_the_full_weights(
    file, tmp_path, inference_mode, quantize, save, load
):
    import comfy.sd

    from lab.tiny_models import tiny_flux

    plain = tiny_flux(tmp_path / "large.safetensors", hidden=1024, depth=1, singles=2)
    large = tmp_path / "large-int8.safetensors"
    model = comfy.sd.load_diffusion_model(str(plain))
    save(quantize(model, preset="flux1"), large)
    full = 2 * plain.stat().st_size  # as float32, the way a CPU holds it
    del model
    load(file)
    with peak_memory() as peak:
        patcher, _ = load(large)
    size = patcher.model_size()
    assert size < 0.42 * full
    assert 0.9 * size < peak.taken < 1.25 * size


def edited(file, tmp_path, change):
    """A copy of ``file`` whose tensors ``change`` has edited in place."""
    tensors = load_file(file)
    change(tensors)
    path = tmp_path / "edited.safetensors"
    save_file(tensors, path, metadata_of(file))
    return path


def rename_layer(tensors):
    for name in [name for name in tensors if f".{LAYER}." in name]:
        tensors[name.replace(LAYER, "double_blocks.0.img_attn.missing")] = tensors.pop(name)


@pytest.mark.parametrize(
    "change, fault",
    [
        (lambda t: t.pop("graphquant.img_in.bias"), "lacks 1 weights of Flux, such as img_in.bias"),
        (lambda t: t.pop(f"graphquant.{LAYER}.weight_scale"), f"lacks {LAYER}.weight_scale"),
        (lambda t: t.pop(f"graphquant.{LAYER}.graphquant"), "nothing says how"),
        (rename_layer, "lacks 2 weights of Flux, such as double_blocks.0.img_attn.qkv"),
        (lambda t: t.update({"img_in.weight": torch.ones(2)}), "mixes names"),
        (lambda t: [t.pop(n) for n in list(t) if "img_in" in n or "norm" in n], "recognise"),
    ],
)
def test_a_file_that_was_tampered_with_loads_nothing(file, tmp_path, change, fault, load):
    with pytest.raises(QuantizationError, match=fault):
        load(edited(file, tmp_path, change))


def test_a_truncated_file_loads_nothing(file, load):
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(QuantizationError, match=r"saved\.safetensors is 1 bytes short"):
        load(file)


def test_no_header_reaches_comfyui_that_was_not_checked(tiny_flux_file, tmp_path, load):
    path = tmp_path / "stock.safetensors"
    path.write_bytes(tiny_flux_file.read_bytes() + b"more")
    with pytest.raises(QuantizationError, match=r"stock\.safetensors is 4 too long"):
        load(path)
