"""A model file is found by any of its names, and planned on without reading a weight."""

import pytest
import torch
from safetensors.torch import save_file

from graphquant.quant_core.conversion.source import find_file, open_model, put_layer
from graphquant.quant_core.errors import StorageError


def test_the_layers_stand_on_the_meta_device_under_their_names(model_file, tensors):
    with open_model(model_file) as model:
        layers = dict(model.layers().named_parameters())
        assert model.path == model_file and model.model.architecture == "flux1"
        assert model.weight_name("img_in") == "img_in.weight"
    matrices = {name: tensor for name, tensor in tensors.items() if tensor.dim() == 2}
    assert {name: tuple(p.shape) for name, p in layers.items()} == {
        name: tuple(tensor.shape) for name, tensor in matrices.items()
    }
    assert all(parameter.is_meta for parameter in layers.values())


def test_vectors_are_read_where_they_are_asked_for(model_file, tensors):
    with open_model(model_file) as model:
        vectors = {n: p for n, p in model.layers_and_vectors().named_parameters() if p.dim() == 1}
    assert vectors.keys() == {name for name, tensor in tensors.items() if tensor.dim() == 1}
    assert all(torch.equal(vector, tensors[name]) for name, vector in vectors.items())


def test_of_a_checkpoint_the_diffusion_model_alone_is_planned_on(tmp_path, tensors):
    whole = {f"model.diffusion_model.{name}": tensor for name, tensor in tensors.items()}
    whole["cond_stage_model.layer.weight"] = torch.zeros(8, 8)
    save_file(whole, tmp_path / "whole.safetensors")
    with open_model(tmp_path) as model:  # its folder, where nothing else lies
        names = {name.removesuffix(".weight") for name, _ in model.layers().named_parameters()}
        assert model.weight_name("img_in") == "model.diffusion_model.img_in.weight"
    assert "img_in" in names and not any("cond_stage" in name for name in names)


def test_a_layer_keeps_the_layers_below_its_name():
    root = torch.nn.Module()
    inner, outer = torch.nn.Linear(2, 2), torch.nn.Linear(3, 3)
    put_layer(root, "block.proj.inner", inner)
    put_layer(root, "block.proj", outer)
    assert root.get_submodule("block.proj") is outer
    assert root.get_submodule("block.proj.inner") is inner


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("m.gguf", b"GGUF", "is a GGUF file"),
        ("m.safetensors", b"GGUF....", "is a GGUF file"),
        ("m.ckpt", b"PK\x03\x04", "is a pickle"),
        ("m.pt", b"\x80\x02}q", "is a pickle"),
        ("m-00002-of-00003.safetensors", b"....", r"one of 3 shards\. Name the index, m\.safete"),
    ],
)
def test_other_files_are_refused_with_what_to_do(tmp_path, name, content, fault):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StorageError, match=fault):
        find_file(tmp_path / name)


def test_a_folder_of_none_or_of_two_models_is_refused_by_name(tmp_path):
    with pytest.raises(StorageError, match=r"holds 0 models\. Name the file"):
        find_file(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.safetensors").write_bytes(b"....")
    with pytest.raises(StorageError, match=r"holds 2 models: a\.safetensors, b\.safetensors"):
        find_file(tmp_path)
    with pytest.raises(StorageError, match="There is no file"):
        find_file(tmp_path / "c.safetensors")
