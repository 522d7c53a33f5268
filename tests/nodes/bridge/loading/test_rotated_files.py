"""ComfyUI's rotated files of other tools load as ours, and what this ComfyUI lacks is said."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from graphquant.quant_core import QuantizationError
from lab.foreign_files import convrot, w4a8
from lab.sampling import relative_l2

pytestmark = pytest.mark.usefixtures("comfy")

LAYER = "double_blocks.0.img_attn.qkv"


@pytest.fixture
def write(tiny_flux_file, tmp_path):
    def run(writer, **options):
        path = tmp_path / "rotated.safetensors"
        writer(load_file(tiny_flux_file), path, **options)
        return path

    return run


@pytest.mark.parametrize(
    "options",
    [
        {"marker": {"format": None}},  # ComfyUI-INT8-Fast names no format
        {"params": True},
        {"scale": lambda steps: steps.view(-1)},
    ],
    ids=["without a format", "options in params", "flat scales"],
)
def test_every_way_to_write_convrot_loads_as_the_same_model(options, write, load, latent):
    expected = latent(load(write(convrot))[0])
    patcher, _ = load(write(convrot, **options))
    fmt = patcher.model.diffusion_model.get_submodule(LAYER).weight._params.format
    assert str(fmt) == "int8 per-row, rotated by 64, int8 activations"
    assert torch.equal(latent(patcher), expected)


def test_comfyui_itself_computes_what_a_foreign_file_computes_here(
    write, load, latent, monkeypatch
):
    """Bit by bit with comfy-kitchen's arithmetic; ours differs in last bits, which INT8 rounds."""
    import comfy.sd

    from graphquant.nodes.bridge.tensor import operators

    path = write(convrot)
    stock = latent(comfy.sd.load_diffusion_model(str(path)))
    patcher = load(path)[0]
    assert relative_l2(latent(patcher), stock) < 5e-3
    monkeypatch.setattr(operators, "is_native", lambda fmt, x: True)
    assert torch.equal(latent(patcher), stock)


def test_scales_as_octets_are_scales(write, load, latent):
    expected = latent(load(write(w4a8))[0])
    assert torch.equal(latent(load(write(w4a8, as_octets=True))[0]), expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"marker": {"convrot_groupsize": 100}}, "No rotation by 100"),
        ({"marker": {"convrot_groupsize": "64"}}, "values that cannot be"),
        ({"marker": {"convrot_groupsize": 1024}}, "does not divide its 256 columns"),
        ({"scale": lambda steps: steps[:3]}, "has 3 scales"),
        ({"scale": lambda steps: steps.half()}, "float16"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(options, words, write, load):
    with pytest.raises(QuantizationError, match=words) as error:
        load(write(convrot, **options))
    assert "nothing was loaded" in str(error.value)


def test_an_asymmetric_layer_is_refused_instead_of_read_wrongly(write, load):
    with pytest.raises(QuantizationError, match="asymmetric"):
        load(write(w4a8, correction=True))


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("awq_w4a16", "ComfyUI 0.38.0 or newer"),
        ("svdquant_w4a4", "a ComfyUI that reads it"),
        ("something_new", "a ComfyUI that reads it"),
    ],
)
def test_a_format_that_this_comfyui_lacks_is_refused_in_one_line(name, needs, write, load):
    path = write(convrot, marker={"format": name})
    with pytest.raises(QuantizationError) as error:
        load(path)
    message = str(error.value)
    assert "\n" not in message and needs in message and name in message
    assert message.startswith("rotated.safetensors stores 32 layers as ")
    assert "Update ComfyUI; nothing was loaded." in message


@pytest.fixture
def mixed(write):
    """W4A8 but for one layer of FP8, which is ComfyUI's to read, and with it the file."""
    path = write(w4a8)
    tensors = load_file(path)
    layers = json.loads(_metadata(path)["_quantization_metadata"])["layers"]
    name = next(iter(layers))
    for part in ("weight_s_rel", "weight_s_channel", "weight_codebook"):
        del tensors[f"{name}.{part}"]
    shape = (tensors[f"{name}.weight"].shape[0], 2 * tensors[f"{name}.weight"].shape[1])
    tensors[f"{name}.weight"] = torch.zeros(shape, dtype=torch.float8_e4m3fn)
    tensors[f"{name}.weight_scale"] = torch.tensor(1.0)
    layers[name] = {"format": "float8_e4m3fn"}

    def save(**further):
        said = {"_quantization_metadata": json.dumps({"layers": layers})}
        save_file(tensors | further, path, said)
        return path

    return save


def comfyui_has_w4a8():
    from comfy.quant_ops import QUANT_ALGOS

    return "asym_w4a8_int8" in QUANT_ALGOS


def test_w4a8_beside_another_format_needs_a_comfyui_that_has_it(mixed, load):
    if comfyui_has_w4a8():
        pytest.skip("this ComfyUI has it")
    with pytest.raises(
        QuantizationError, match=r"31 layers as asym_w4a8_int8, which needs ComfyUI 0\.31"
    ):
        load(mixed())


def test_a_comfyui_that_has_w4a8_loads_it_beside_another_format(mixed, load, latent):
    import comfy.sd

    if not comfyui_has_w4a8():
        pytest.skip("ComfyUI reads W4A8 from 0.31.0 on")
    patcher, *_ = load(mixed())
    assert torch.equal(latent(patcher), latent(comfy.sd.load_diffusion_model(str(mixed()))))


@pytest.mark.parametrize("part", ["weight_correction", "weight_codebook_2"])
def test_what_comfyui_does_not_read_of_w4a8_is_refused_in_a_mixed_file(part, mixed, load):
    if not comfyui_has_w4a8():
        pytest.skip("ComfyUI reads W4A8 from 0.31.0 on")
    layer = "double_blocks.1.img_attn.qkv"
    path = mixed(**{f"{layer}.{part}": torch.zeros(16)})
    with pytest.raises(QuantizationError, match=rf"{layer}\.{part}, which belongs to {layer}"):
        load(path)


def _metadata(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()
