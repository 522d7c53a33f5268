"""Sizes before loading: from a header alone, equal to what quantizing makes."""

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from graphquant.quant_core import UnknownNameError, estimate, quantize_component

GIB = 1024**3


def header_only(path, shapes, dtype="BF16"):
    """A file of tensors with these shapes that takes no room on the disk."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def dit_22b():
    """A diffusion transformer of 22 billion parameters: LTX-2.3's own names, of 48 blocks."""
    shapes = {"patchify_proj.weight": (6144, 128), "proj_out.weight": (128, 6144)}
    for n in range(48):
        block = f"transformer_blocks.{n}"
        for attention in ("attn1", "attn2"):
            for part in ("to_q", "to_k", "to_v", "to_out.0"):
                shapes[f"{block}.{attention}.{part}.weight"] = (6144, 6144)
                shapes[f"{block}.{attention}.{part}.bias"] = (6144,)
        shapes[f"{block}.ff.net.0.proj.weight"] = (12288, 6144)
        shapes[f"{block}.ff.net.2.weight"] = (6144, 12288)
        shapes[f"{block}.scale_shift_table"] = (6, 6144)
    return shapes


def test_a_model_of_22_billion_parameters_takes_40_20_20_20_10(tmp_path):
    file = header_only(tmp_path / "22b.safetensors", dit_22b())
    found = estimate(file, ["none", "fp8-weight-only", "fp8-dynamic", "int8", "int4"])
    sizes = [each.nbytes / GIB for each in found.methods]
    assert found.nbytes / GIB == pytest.approx(40, rel=0.05)
    assert sizes == pytest.approx([40, 20, 20, 20, 10.6], rel=0.05)
    assert found.component == "transformer"


def test_the_estimate_of_a_module_is_what_quantizing_leaves():
    model = torch.nn.Sequential(torch.nn.Linear(128, 256), torch.nn.Linear(256, 64)).bfloat16()
    found = estimate(model, ["int8", "int4", "nf4-fine"], preset=None)
    for each in found.methods:
        copy = torch.nn.Sequential(torch.nn.Linear(128, 256), torch.nn.Linear(256, 64)).bfloat16()
        _, stats = quantize_component(copy, each.method)
        assert each.nbytes == stats["model_bytes_after"], each.method


def test_a_module_on_the_meta_device_needs_no_memory():
    with torch.device("meta"):
        model = torch.nn.ModuleDict(
            {"blocks": torch.nn.ModuleList([torch.nn.Linear(2**16, 2**16)])}
        )
    found = estimate(model.bfloat16(), ["int8"], preset=None)
    assert found.methods[0].nbytes / GIB == pytest.approx(4, rel=0.01)


def test_by_default_every_method_that_needs_no_measurement_is_told(model_file):
    found = estimate(model_file)
    assert found.architecture == "flux1"
    assert {"int8", "int4", "nvfp4", "w4a8"} <= {each.method for each in found.methods}
    assert not {"none", "fit", "fastest", "fp8-static"} & {each.method for each in found.methods}
    assert all(0 < each.nbytes < found.nbytes for each in found.methods if not each.problem)


@pytest.fixture
def checkpoint(tmp_path, tensors):
    """A diffusion model, a text encoder and a VAE in one file."""
    inside = {f"model.diffusion_model.{name}": tensor for name, tensor in tensors.items()}
    inside["text_encoders.t5xxl.block.0.q.weight"] = torch.zeros(128, 128).bfloat16()
    inside["text_encoders.t5xxl.embed_tokens.weight"] = torch.zeros(500, 128).bfloat16()
    inside["first_stage_model.decoder.conv_in.weight"] = torch.zeros(64, 16, 3, 3).bfloat16()
    inside["first_stage_model.encoder.conv_in.weight"] = torch.zeros(64, 3, 3, 3).bfloat16()
    path = tmp_path / "checkpoint.safetensors"
    save_file(inside, path)
    return path


def test_each_component_of_a_checkpoint_has_its_own_sizes(checkpoint, model_file):
    whole, alone = estimate(checkpoint, ["int8"]), estimate(model_file, ["int8"])
    assert (whole.component, whole.nbytes) == ("transformer", alone.nbytes)
    assert whole.methods[0].nbytes == alone.methods[0].nbytes
    encoder = estimate(checkpoint, ["int8-dynamic"], "encoder")
    assert encoder.nbytes == 2 * 128 * (128 + 500)
    assert encoder.methods[0].nbytes == encoder.nbytes - 128 * 128 + 4 * 128
    vae = estimate(checkpoint, ["int8", "fp8-dynamic"], "vae")
    assert vae.nbytes == 2 * 64 * 9 * 19
    assert vae.methods[0].layers == 1  # the decoder's
    assert "A VAE cannot be quantized to fp8-dynamic" in vae.methods[1].problem


def test_a_file_of_a_vae_is_told_for_one(tmp_path):
    names = ("decoder.conv_in", "decoder.up.0.block.0.conv1", "encoder.conv_out")
    save_file(
        {f"{name}.weight": torch.zeros(64, 64, 3, 3).bfloat16() for name in names},
        tmp_path / "vae.safetensors",
    )
    found = estimate(tmp_path / "vae.safetensors", ["int8"])
    assert found.component == "vae"
    assert found.methods[0].layers == 2


def test_a_component_of_another_name_is_refused(model_file):
    with pytest.raises(UnknownNameError, match="Unknown component type 'unet'"):
        estimate(model_file, component_type="unet")


def test_one_name_is_one_method():
    found = estimate(torch.nn.Sequential(torch.nn.Linear(128, 256)), "int8", preset=None)
    assert [each.method for each in found.methods] == ["int8"] and not found.methods[0].problem
