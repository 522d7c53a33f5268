"""A quantized layer in a file is read bit by bit, or refused with what is wrong about it."""

import json

import pytest
import torch
from safetensors.torch import save_file

from graphquant.quant_core.errors import StorageError
from graphquant.quant_core.formats import NVFP4, CastFloat8, Code4, Float8, Int4, Int8, IntN
from graphquant.quant_core.storage import (
    LAYERS,
    StoredLayer,
    TensorFiles,
    find_layers,
    marker_name,
    marker_tensor,
)
from lab.formats import EACH_KIND

FORMATS = [
    Int8(),
    Int8("per-tensor", "int8"),
    Float8(),
    Float8("float8_e5m2", "per-tensor"),
    Float8(activations="float8_e4m3fn"),
    CastFloat8(),
    Int4(),
    Int4(32),
    *EACH_KIND,
]


def weight(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def stored(fmt, shape=(24, 256)):
    """The tensors of a private file of one layer called "block.0"."""
    layer = StoredLayer("block.0", fmt, shape)
    tensors = layer.tensors(fmt.quantize(weight(*shape)))
    tensors[marker_name("block.0")] = marker_tensor(layer.to_dict())
    return {f"graphquant.{name}": tensor for name, tensor in tensors.items()}


def find(tmp_path, tensors, metadata=None):
    save_file(tensors, tmp_path / "m.safetensors", metadata)
    with TensorFiles(tmp_path / "m.safetensors") as files:
        prefix, layers = find_layers(files)
        return {name: layer.read(files, prefix, torch.float32) for name, layer in layers.items()}


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_every_format_reads_back_bit_by_bit(tmp_path, fmt):
    expected = fmt.quantize(weight(24, 256))
    read = find(tmp_path, stored(fmt))["block.0"]
    assert read.format == fmt and read.shape == (24, 256)
    assert read.tensors.keys() == expected.tensors.keys()
    for part, tensor in expected.tensors.items():
        assert read.tensors[part].dtype == tensor.dtype
        assert torch.equal(read.tensors[part].float(), tensor.float())


@pytest.mark.parametrize("fmt", [Int8(), Float8(), CastFloat8()], ids=str)
def test_a_convolution_reads_back_bit_by_bit(tmp_path, fmt):
    shape = (6, 4, 3, 3)
    read = find(tmp_path, stored(fmt, shape))["block.0"]
    expected = fmt.quantize(weight(*shape))
    assert torch.equal(read.dequantize(), expected.dequantize())


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_the_parts_are_foretold_from_the_shape_alone(fmt):
    found = fmt.quantize(weight(24, 256))
    specs = StoredLayer("x", fmt, (24, 256)).specs
    assert {part: (s.dtype, s.shape) for part, s in specs.items()} == {
        part: (t.dtype, tuple(t.shape)) for part, t in found.tensors.items()
    }
    assert sum(spec.nbytes for spec in specs.values()) == fmt.nbytes((24, 256))


def test_layers_that_the_metadata_describe_need_no_marker(tmp_path):
    layer = StoredLayer("block.0", Int8(), (24, 256))
    tensors = layer.tensors(Int8().quantize(weight(24, 256)))
    metadata = {LAYERS: json.dumps({"block.0": layer.to_dict()})}
    assert find(tmp_path, tensors, metadata)["block.0"].format == Int8()


def test_a_file_without_markers_has_no_layers(tmp_path):
    assert find(tmp_path, {"block.0.weight": torch.ones(2, 2)}) == {}


def changed(fmt=None, **changes):
    """The tensors of a file whose marker says something else."""
    fmt = fmt or Int4()
    values = StoredLayer("block.0", fmt, (24, 256)).to_dict() | changes
    return stored(fmt) | {"graphquant.block.0.graphquant": marker_tensor(values)}


def without(name, fmt=None):
    return {k: v for k, v in stored(fmt or Int4()).items() if k != f"graphquant.block.0.{name}"}


@pytest.mark.parametrize(
    "tensors, fault",
    [
        (changed(kind="int3"), "which this version does not know"),
        (changed(kind=None), "which this version does not know"),
        (changed(bits=3), "which this version does not know"),
        (changed(group_size=0), "which is impossible"),
        (changed(group_size="all"), "which this version does not know"),
        (changed(group_size=[128]), "which this version does not know"),
        (changed(group_size=128.0), "which this version does not know"),
        (changed(IntN(3), bits=9), "which this version does not know"),
        (changed(IntN(3), bits=2), "weight as torch.uint8"),
        (changed(Code4(double_quant=True), double_quant=False), r"has block.0.weight_scale as"),
        (without("weight_scale_2", NVFP4()), "lacks block.0.weight_scale_2"),
        (changed(group_size=64), r"weight_scale as .* where int4 groups of 64 of"),
        (changed(shape=[24, 512]), "weight as torch.uint8"),
        (changed(shape=[24, 2**40]), "which can't be"),
        (changed(shape=[24.0, 256]), "which can't be"),
        (changed(shape="24 x 256"), "which can't be"),
        (changed(shape=[24]), "which can't be"),
        (changed(shape=[0, 256]), "which can't be"),
        (changed(Int8(), shape=[48, 128]), "weight as torch.int8"),
        (changed(Float8(), dtype="float8_e5m2"), "weight as torch.float8_e4m3fn"),
        (changed(Float8(), dtype="load"), "which is impossible"),
        (changed(Float8(), granularity="per-tensor"), r"has block.0.weight_scale as"),
        (without("weight_scale"), "lacks block.0.weight_scale"),
        (without("weight_zero_point"), "lacks block.0.weight_zero_point"),
        (without("weight"), "has no block.0.weight"),
        (
            stored(Int8()) | {"graphquant.block.0.weight": torch.ones(24, 256)},
            "weight as torch.float32",
        ),
        (
            stored(Int8()) | {"graphquant.block.0.graphquant": torch.zeros(3, dtype=torch.uint8)},
            "that is not JSON",
        ),
        (
            stored(Int8()) | {"graphquant.block.0.graphquant": marker_tensor([1])},
            "that is not a JSON object",
        ),
        (stored(Int8()) | {"block.1.weight": torch.ones(2)}, "mixes names with and without"),
    ],
)
def test_a_layer_that_the_file_does_not_bear_out_is_refused(tmp_path, tensors, fault):
    with pytest.raises(StorageError, match=fault) as error:
        find(tmp_path, tensors)
    assert str(error.value).startswith("m.safetensors ")


@pytest.mark.parametrize("text", ["[", "[]", "3", '{"block.0": 3}', '{"a": {"shape": [2, 2]}}'])
def test_metadata_that_describe_no_layer_are_refused(tmp_path, text):
    with pytest.raises(StorageError, match=r"m\.safetensors "):
        find(tmp_path, {"block.0.weight": torch.ones(2, 2)}, {LAYERS: text})
