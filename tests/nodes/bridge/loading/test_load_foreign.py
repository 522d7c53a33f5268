"""Files that other libraries quantized become models, with every tensor used."""

import json

import pytest
import torch
from safetensors.torch import load_file

from graphquant.quant_core import QuantizationError
from lab.foreign_files import bnb_int8, convrot, gguf_file, modelopt_fp8, nf4, torchao, w4a8
from lab.sampling import relative_l2

pytestmark = pytest.mark.usefixtures("comfy")

LAYER = "double_blocks.0.img_attn.qkv"


# What writes it; what its layers are; the share of bytes; the error of the latent after one step.
KINDS = {
    "bitsandbytes NF4": (nf4, "nf4 blocks of 64, double quantization", 0.30, 0.12),
    "bitsandbytes INT8": (bnb_int8, "llm.int8 per-row, int8 activations", 0.55, 0.03),
    "torchao INT8": (torchao, "int8 per-row", 0.55, 0.02),
    "ModelOpt FP8": (modelopt_fp8, "float8_e4m3fn per-tensor", 0.55, 0.06),
    "ComfyUI's int8_tensorwise": (convrot, "int8 per-row, rotated by 64", 0.55, 0.02),
    "ComfyUI's asym_w4a8_int8": (w4a8, "w4a8 groups of 16, rotated by 256", 0.31, 0.10),
    "GGUF Q8_0": (gguf_file, "GGUF Q8_0", 0.56, 0.02),
}


@pytest.fixture
def write(tiny_flux_file, tmp_path):
    """``write(writer, **options)`` -> a file of the tiny Flux."""

    def run(writer, change=None, **options):
        suffix = "gguf" if writer is gguf_file else "safetensors"
        path = tmp_path / f"foreign.{suffix}"
        tensors = load_file(tiny_flux_file)
        if change:
            change(tensors)
        writer(tensors, path, **options)
        return path

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_samples_like_the_original(kind, write, load, flux_patcher, latent):
    writer, name, share, bound = KINDS[kind]
    path = write(writer)
    patcher, report = load(path)
    assert 1e-4 < relative_l2(latent(patcher), latent(flux_patcher)) < bound
    weight = patcher.model.diffusion_model.get_submodule(LAYER).weight
    assert str(weight._params.format).startswith(name)
    # On a CPU ComfyUI holds plain weights as float32.
    assert patcher.model_size() < share * flux_patcher.model_size()
    count = 42 if kind.startswith("GGUF") else 32
    assert any(f"{count} layers of {kind}" in fact for fact in report.facts)
    assert report.report.quantized_layers == count


@pytest.mark.parametrize("kind", ["bitsandbytes NF4", "GGUF Q8_0"])
def test_a_lora_acts_and_comes_off_bit_exactly(kind, write, load, latent, with_lora):
    patcher, _ = load(write(KINDS[kind][0]))
    before = latent(patcher)
    patched, _ = with_lora(patcher, [LAYER])
    assert relative_l2(latent(patched), before) > 0.01
    assert torch.equal(latent(patcher), before)


@pytest.mark.parametrize("kind", ["bitsandbytes NF4", "torchao INT8", "GGUF Q8_0"])
def test_what_was_loaded_is_saved_and_loaded_bit_by_bit(kind, write, load, save, latent, tmp_path):
    patcher, _ = load(write(KINDS[kind][0]))
    save(patcher, tmp_path / "saved.safetensors")
    again, _ = load(tmp_path / "saved.safetensors")
    assert torch.equal(latent(again), latent(patcher))


def test_a_prefix_is_stripped_and_the_other_models_tensors_are_counted(write, load):
    def change(tensors):
        for name in list(tensors):
            tensors[f"model.diffusion_model.{name}"] = tensors.pop(name)
        tensors["first_stage_model.decoder.bias"] = torch.zeros(8)

    _, report = load(write(gguf_file, change))
    assert any("42 layers of GGUF Q8_0" in fact for fact in report.facts)
    assert "1 tensors belong to other models and were left out." in report.facts


def test_the_authors_own_names_of_flux_are_comfyuis(write, load, latent, flux_patcher):
    def change(tensors):
        for name in [name for name in tensors if name.endswith("_norm.weight")]:
            tensors[name.replace("_norm.weight", "_norm.scale")] = tensors.pop(name)
        assert sum(name.endswith("_norm.scale") for name in tensors) > 10

    patcher, report = load(write(gguf_file, change))
    assert 1e-4 < relative_l2(latent(patcher), latent(flux_patcher)) < 0.02
    assert "100 of 100 tensors used; 58 of them are not quantized." in report.facts


def test_quantized_layers_that_comfyui_renames_are_found_by_their_old_names():
    import comfy.supported_models

    from graphquant.nodes.bridge.loading.building import renamed
    from graphquant.nodes.bridge.tensor.placeholder import Placeholder

    config = comfy.supported_models.HunyuanVideo({})
    state = {
        "double_blocks.0.img_attn_qkv.weight": Placeholder((6, 2), torch.bfloat16),
        "double_blocks.0.img_mod.linear.bias": torch.empty(6, device="meta"),
        "final_layer.linear.weight": Placeholder((4, 2), torch.bfloat16),
    }
    assert renamed(config, state) == {
        "double_blocks.0.img_attn.qkv.weight": "double_blocks.0.img_attn_qkv.weight",
        "double_blocks.0.img_mod.lin.bias": "double_blocks.0.img_mod.linear.bias",
        "final_layer.linear.weight": "final_layer.linear.weight",
    }


def test_quantized_tensors_that_are_not_layers_are_decoded(write, load, flux_patcher):
    patcher, report = load(write(gguf_file, blocks=("img_in.bias",)))
    loaded, original = (p.model.diffusion_model.img_in.bias for p in (patcher, flux_patcher))
    assert 0 < relative_l2(loaded, original) < 0.01
    assert "100 of 100 tensors used; 58 of them are not quantized." in report.facts


def test_convolutions_in_rows_of_256_are_put_back_into_their_shape(
    comfy, tmp_path, load, inference_mode
):
    """As ComfyUI-GGUF's converter writes SD 1.5 and SDXL: blocks over the ends of short rows."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    import comfy.sd

    from lab.sampling import sample
    from lab.tiny_models import SD15, tiny_sd15

    original = tiny_sd15(tmp_path / "sd15.safetensors")
    path = tmp_path / "sd15.gguf"
    writer = gguf.GGUFWriter(path, "sd1")
    number, convolutions = gguf.GGMLQuantizationType.Q8_0, 0
    for name, tensor in load_file(original).items():
        data = tensor.float().numpy()
        if tensor.dim() == 4 and tensor.numel() % 256 == 0:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(tensor.shape))
            data, convolutions = gguf.quantize(data.reshape(-1, 256), number), convolutions + 1
            writer.add_tensor(name, data, raw_dtype=number)
        else:
            writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    patcher, report = load(path)
    assert convolutions > 10 and report.report.quantized_layers == convolutions
    expected = sample(comfy.sd.load_diffusion_model(str(original)), SD15, steps=1)
    assert 1e-4 < relative_l2(sample(patcher, SD15, steps=1), expected) < 0.02


@pytest.mark.parametrize(
    ("writer", "change", "fault"),
    [
        (gguf_file, lambda t: t.pop("img_in.bias"), "lacks 1 weights of Flux, such as img_in.bias"),
        (nf4, lambda t: t.pop("img_in.bias"), "lacks 1 weights of Flux, such as img_in.bias"),
        (gguf_file, lambda t: t.pop("img_in.weight"), "does not recognise the model"),
        (
            nf4,
            lambda t: t.update({"double_blocks.9.x.weight": torch.ones(64, 64)}),
            "has a quantized double_blocks.9.x of [64, 64]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_not_whole_is_refused(write, load, writer, change, fault):
    with pytest.raises(QuantizationError) as error:
        load(write(writer, change))
    assert fault in str(error.value) and "\n" not in str(error.value)


def test_names_of_diffusers_are_refused_in_words(tmp_path, load):
    def layer(name):
        return {f"{name}.weight": torch.randn(64, 64)}

    tensors = layer("x_embedder") | layer("transformer_blocks.0.attn.to_q")
    path = tmp_path / "diffusers.gguf"
    gguf_file(tensors, path)
    with pytest.raises(QuantizationError, match="names its layers as diffusers does"):
        load(path)


def test_provenance_and_torchaos_metadata_do_not_reach_the_next_file(write, load, save, tmp_path):
    patcher, _ = load(write(torchao))
    save(patcher, tmp_path / "saved.safetensors")
    from safetensors import safe_open

    with safe_open(tmp_path / "saved.safetensors", "pt") as file:
        metadata = file.metadata()
    assert "tensor_names" not in metadata and f"{LAYER}.weight" not in metadata
    assert json.loads(metadata.get("graphquant.keep", "{}")) == {}
    assert metadata["graphquant.source"] == "foreign.safetensors"
