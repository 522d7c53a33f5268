"""Quantized files with diffusers' names load, and joined rows have the values of those apart."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from graphquant.quant_core import QuantizationError
from lab.foreign_files import bnb_int8, gguf_file, modelopt_fp8, nf4, torchao
from lab.sampling import relative_l2

pytestmark = pytest.mark.usefixtures("comfy")

JOINED = ("double_blocks.0.img_attn.qkv", "double_blocks.1.txt_attn.qkv", "single_blocks.2.linear1")
# What writes it, what the joined layers are, and the error of the latent after one step.
KINDS = {
    "bitsandbytes NF4": (nf4, "nf4 blocks of 64", 0.12),
    "bitsandbytes INT8": (bnb_int8, "llm.int8 per-row", 0.03),
    "torchao INT8": (torchao, "int8 per-row", 0.02),
    "ModelOpt FP8": (modelopt_fp8, "float8_e4m3fn per-row, float8_e4m3fn activations", 0.06),
    "GGUF Q8_0": (gguf_file, "GGUF Q8_0", 0.02),
}


def as_diffusers(tensors):
    """The FLUX ``tensors`` apart and by the names that diffusers gives them."""
    import comfy.utils

    def count(blocks):
        return 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith(blocks))

    names = comfy.utils.flux_to_diffusers(
        {
            "depth": count("double_blocks"),
            "depth_single_blocks": count("single_blocks"),
            "hidden_size": len(tensors["img_in.bias"]),
        }
    )
    out, left = {}, set(tensors)
    for name, place in names.items():
        target, rows, change, *_ = (place, None, None) if isinstance(place, str) else (*place, None)
        another_name = target not in left and rows is None
        if target not in tensors or another_name:
            continue
        left.discard(target)
        tensor = tensors[target] if rows is None else tensors[target].narrow(*rows)
        out[name] = (change(tensor) if change else tensor).clone()
    assert not left
    return out


@pytest.fixture
def write(tiny_flux_file, tmp_path):
    """``write(writer, change=None)`` -> a file of the tiny Flux by diffusers' names."""

    def run(writer, change=None):
        suffix = "gguf" if writer is gguf_file else "safetensors"
        tensors = as_diffusers(load_file(tiny_flux_file))
        if change:
            change(tensors)
        writer(tensors, tmp_path / f"diffusers.{suffix}")
        return tmp_path / f"diffusers.{suffix}"

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_samples_like_the_original(kind, write, load, flux_patcher, latent):
    writer, name, bound = KINDS[kind]
    patcher, report = load(write(writer))
    assert 1e-4 < relative_l2(latent(patcher), latent(flux_patcher)) < bound
    model = patcher.model.diffusion_model
    assert all(str(model.get_submodule(n).weight._params.format).startswith(name) for n in JOINED)
    # Two in each double block, one in each single one; GGUF's writer quantizes norm_out too.
    count = 9 if writer is gguf_file else 8
    told = f"{count} layers made of the file's rows, as ComfyUI joins q, k and v."
    assert told in report.facts
    used = next(fact for fact in report.facts if "tensors used" in fact).split()
    assert used[0] == used[2]


@pytest.mark.parametrize("kind", ["bitsandbytes NF4", "bitsandbytes INT8", "torchao INT8"])
def test_rows_have_the_values_that_comfyuis_own_conversion_gives_them(kind, write, load):
    import comfy.model_detection

    from graphquant.quant_core.storage import TensorFiles
    from graphquant.quant_core.storage.foreign import find_foreign

    path = write(KINDS[kind][0])
    with TensorFiles(path) as files:
        layers = find_foreign(files).layers
        dense = {f"{n}.weight": layer.read(files, torch.float32) for n, layer in layers.items()}
        apart = {name: weight.dequantize(torch.float32) for name, weight in dense.items()}
        apart |= {n: files.read(n) for n in files.specs if n.startswith("x_embedder.")}
    expected = comfy.model_detection.convert_diffusers_mmdit(apart)
    model = load(path)[0].model.diffusion_model
    for name in JOINED:
        stored = model.get_submodule(name).weight._params
        weight = model.get_submodule(name).weight.dequantize().float()
        assert relative_l2(weight, expected[f"{name}.weight"]) < 1e-6, stored


def test_a_lora_acts_and_what_was_loaded_is_saved_bit_by_bit(
    write, load, save, latent, with_lora, tmp_path
):
    patcher, _ = load(write(nf4))
    before = latent(patcher)
    patched, _ = with_lora(patcher, list(JOINED))
    assert relative_l2(latent(patched), before) > 0.01
    assert torch.equal(latent(patcher), before)
    save(patcher, tmp_path / "saved.safetensors")
    assert torch.equal(latent(load(tmp_path / "saved.safetensors")[0]), before)


def keep_plain(part):
    """A writer of NF4 that leaves the layers with ``part`` in their names as they are."""

    def write_file(tensors, path):
        nf4({name: t for name, t in tensors.items() if part not in name}, path)
        save_file(load_file(path) | {n: t for n, t in tensors.items() if part in n}, path)

    return write_file


@pytest.mark.parametrize(
    ("writer", "change", "fault"),
    [
        (keep_plain("to_k"), None, "and only some of them are quantized. Quantize the original"),
        (nf4, lambda t: t.pop("transformer_blocks.0.attn.to_k.weight"), "lacks some of q, k and v"),
        (nf4, lambda t: t.pop("x_embedder.bias"), "names its layers as diffusers does"),
        (nf4, lambda t: t.update({"x.weight": torch.ones(64)}), "1 tensors that do not belong"),
        (nf4, lambda t: t.pop("transformer_blocks.0.ff.net.2.bias"), "lacks 1 weights of Flux"),
    ],
    ids=["mixed", "no k", "no x_embedder.bias", "orphan", "no bias"],
)
def test_what_cant_be_joined_is_refused_in_one_line(write, load, writer, change, fault):
    with pytest.raises(QuantizationError) as error:
        load(write(writer, change))
    assert fault in str(error.value) and "\n" not in str(error.value)


def test_z_images_names_are_converted_and_its_own_are_not(comfy):
    from graphquant.nodes.bridge.loading.diffusers_names import Rows, conversion

    names = ("attention.norm_k", "attention.to_q", "attention.to_k", "attention.to_v")
    shapes = {f"noise_refiner.0.{name}.weight": (6, 4) for name in names}
    made = conversion("z.safetensors", shapes | {"x_pad_token": (1, 4), "scalar": ()})
    assert made["noise_refiner.0.attention.qkv.weight"] == tuple(
        Rows(f"noise_refiner.0.attention.to_{part}.weight", 0, 6) for part in "qkv"
    )
    assert made["scalar"] == (Rows("scalar", 0, 1),)
    assert conversion("wan.safetensors", {"blocks.0.self_attn.q.weight": (6, 4)}) is None
