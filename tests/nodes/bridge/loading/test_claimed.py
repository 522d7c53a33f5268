"""No file loads with a number that nobody read, or with one that nobody wrote."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from graphquant.quant_core import QuantizationError

pytestmark = pytest.mark.usefixtures("comfy")

LAYER = "double_blocks.0.img_attn.qkv"
WEIGHT = f"{LAYER}.weight"


def int8(tensors, dtype=torch.int8):
    weight = tensors[WEIGHT].float()
    scale = weight.abs().amax(1, keepdim=True) / 127
    tensors[WEIGHT] = (weight / scale).round().to(dtype)
    tensors[f"{LAYER}.scale"] = scale


def sdnq_uint8(tensors):
    int8(tensors, torch.uint8)
    tensors[f"{LAYER}.zero_point"] = torch.zeros_like(tensors[f"{LAYER}.scale"])


def sdnq_packed(tensors):
    """Its uint4, its default: flat, two codes a byte, a scale for each group."""
    rows = len(tensors[WEIGHT])
    tensors[WEIGHT] = torch.zeros(tensors[WEIGHT].numel() // 2, dtype=torch.uint8)
    tensors[f"{LAYER}.scale"] = torch.ones(rows, 4, 1)
    tensors[f"{LAYER}.zero_point"] = torch.zeros(rows, 4, 1)


def sdnq_fp8(tensors):
    int8(tensors)
    tensors[WEIGHT] = tensors[WEIGHT].float().to(torch.float8_e4m3fn)


def sdnq_svd(tensors):
    tensors[f"{LAYER}.svd_up"] = torch.zeros(768, 8)
    tensors[f"{LAYER}.svd_down"] = torch.zeros(8, 256)


def quanto(tensors):
    weight = tensors.pop(WEIGHT)
    tensors[f"{WEIGHT}._data"] = weight.to(torch.int8)
    tensors[f"{WEIGHT}._scale"] = torch.ones(len(weight), 1)
    tensors[f"{LAYER}.input_scale"] = torch.ones(())


def hqq(tensors):
    tensors[f"{LAYER}.W_q"] = tensors.pop(WEIGHT).to(torch.uint8)


def gptq(tensors):
    tensors[f"{LAYER}.qweight"] = tensors.pop(WEIGHT).to(torch.int32)
    tensors[f"{LAYER}.qzeros"] = torch.zeros(8, 8, dtype=torch.int32)
    tensors[f"{LAYER}.scales"] = torch.ones(8, 8)


def nunchaku(tensors):
    tensors[f"{LAYER}.qweight"] = tensors.pop(WEIGHT).to(torch.int8)
    tensors[f"{LAYER}.wscales"] = torch.ones(8, 8)


def beside(part, value):
    def change(tensors):
        tensors[f"{LAYER}.{part}"] = value

    return change


def without(name):
    return lambda tensors: tensors.pop(name)


REFUSED = {
    "SDNQ int8": (int8, rf"{WEIGHT} as torch.int8, and nothing .* SDNQ writes such files"),
    "SDNQ uint8": (sdnq_uint8, rf"{WEIGHT} as torch.uint8, and nothing"),
    "SDNQ int16": (lambda t: int8(t, torch.int16), rf"{WEIGHT} as torch.int16, and nothing"),
    "SDNQ packed": (sdnq_packed, rf"{WEIGHT} as torch.uint8, and nothing"),
    "SDNQ FP8": (sdnq_fp8, rf"{LAYER}.scale, which belongs to .* SDNQ writes such files"),
    "SDNQ SVD": (sdnq_svd, rf"{LAYER}.svd_\w+, which belongs to {LAYER} and which nothing"),
    "int32 codes": (lambda t: int8(t, torch.int32), "as torch.int32, and nothing"),
    "optimum-quanto": (quanto, "lacks 1 weights of Flux, such as " + WEIGHT),
    "HQQ": (hqq, "lacks 1 weights of Flux"),
    "GPTQ": (gptq, "lacks 1 weights of Flux"),
    "nunchaku": (nunchaku, rf"nunchaku's: 1 layers such as .*{LAYER} lie in tiles"),
    "a stray absmax": (beside("weight.absmax_2", torch.ones(4)), "which belongs to"),
    "a stray smooth factor": (beside("smooth_factor", torch.ones(256)), "nunchaku writes such"),
    "a stray rotation": (beside("rotation", torch.eye(4)), "which nothing here reads. Its"),
    "no weight": (without("double_blocks.1.txt_mlp.0.weight"), "lacks 1 weights of Flux"),
    "no bias": (without("img_in.bias"), "lacks 1 weights of Flux, such as img_in.bias"),
    "no norm": (
        without("double_blocks.0.img_attn.norm.query_norm.weight"),
        "lacks 1 weights of Flux",
    ),
}


@pytest.fixture
def write(tiny_flux_file, tmp_path):
    """``write(change, prefix="")`` -> the tiny Flux, changed."""

    def run(change, prefix=""):
        tensors = load_file(tiny_flux_file)
        change(tensors)
        path = tmp_path / "changed.safetensors"
        save_file({prefix + name: t.contiguous() for name, t in tensors.items()}, path)
        return path

    return run


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_whole_or_not_understood_is_refused_in_words(kind, prefix, write, load):
    change, message = REFUSED[kind]
    with pytest.raises(QuantizationError, match=message) as error:
        load(write(change, prefix))
    assert "changed.safetensors" in str(error.value) and "\n" not in str(error.value)


def test_tensors_of_no_layer_are_left_out_and_said(write, load, latent, flux_patcher):
    def change(tensors):
        tensors["training_steps"] = torch.tensor(3)
        tensors["ema.decay"] = torch.ones(2)

    patcher, report = load(write(change))
    assert torch.equal(latent(patcher), latent(flux_patcher))
    assert "2 tensors have no place in the model and were left out" in report.to_markdown()


@pytest.mark.parametrize(
    "names", [["x.weight"], ["img_in.weight"], ["double_blocks.0.img_attn.norm.key_norm.weight"]]
)
def test_a_model_that_comfyui_does_not_know_is_refused_in_words(names, tmp_path, load):
    path = tmp_path / "unknown.safetensors"
    save_file({name: torch.zeros(8, 8) for name in names}, path)
    with pytest.raises(QuantizationError, match=r"unknown\.safetensors"):
        load(path)
