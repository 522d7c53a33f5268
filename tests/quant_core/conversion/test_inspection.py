"""A file is told by its formats, its bytes and its readers, whoever wrote it."""

import pytest
import torch
from safetensors.torch import save_file

from graphquant.quant_core.conversion.convert import convert
from graphquant.quant_core.conversion.inspection import inspect_file


def test_a_plain_file_is_its_layers_in_their_dtype(model_file, tensors):
    found = inspect_file(model_file)
    assert found.model.architecture == "flux1" and found.tensors == len(tensors)
    assert found.nbytes == sum(tensor.nbytes for tensor in tensors.values())
    matrices = [tensor for tensor in tensors.values() if tensor.dim() == 2]
    assert found.by_format() == {"bfloat16": (10, sum(each.nbytes for each in matrices))}
    assert found.other_bytes == found.nbytes - sum(each.nbytes for each in matrices)
    assert found.readers == ("Load Diffusion Model: nothing in it is quantized.",)


@pytest.mark.parametrize(
    ("method", "file_format", "reader"),
    [
        ("int8", "stock", "Load Diffusion Model of any ComfyUI that knows int8_tensorwise."),
        ("int4", "graphquant", "A ComfyUI without it finds no model."),
    ],
)
def test_a_converted_file_is_told_by_format(model_file, tmp_path, method, file_format, reader):
    done = convert(model_file, tmp_path / "out.safetensors", method, file_format=file_format)
    found = inspect_file(done.target)
    quantized = {name: count for name, (count, _) in found.by_format().items() if "int" in name}
    assert sum(quantized.values()) == 4 and found.by_format()["bfloat16"][0] == 6
    assert reader in found.readers[0]
    assert (found.notes["method"], found.notes["source"]) == (method, model_file.name)
    assert found.other_bytes + sum(layer.nbytes for layer in found.layers) == found.nbytes
    assert found.to_dict()["bytes"] == found.nbytes


def test_plain_fp8_and_a_checkpoint_have_readers_of_their_own(tmp_path, tensors):
    fp8 = {n: t.to(torch.float8_e4m3fn) if t.dim() == 2 else t for n, t in tensors.items()}
    save_file(fp8, tmp_path / "fp8.safetensors")
    assert "FP8 without scales" in inspect_file(tmp_path / "fp8.safetensors").readers[0]
    whole = {f"model.diffusion_model.{name}": tensor for name, tensor in tensors.items()}
    save_file(whole, tmp_path / "whole.safetensors")
    found = inspect_file(tmp_path / "whole.safetensors")
    assert found.readers[0].startswith("Load Checkpoint")
    assert found.to_dict()["prefix"] == "model.diffusion_model."
