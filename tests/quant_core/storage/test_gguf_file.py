"""GGUF files are read as the package gguf wrote them, and hostile ones in one clear error."""

import struct

import numpy as np
import pytest
import torch

from graphquant.quant_core import QuantizationError
from graphquant.quant_core.storage import GGUFFile
from lab.counting import function_calls


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def tensor(name="w", dims=(32, 2), kind=8, offset=0):
    """A description: dims innermost first; kind 8 is Q8_0."""
    sides = struct.pack(f"<{len(dims)}Q", *dims)
    return text(name) + struct.pack("<I", len(dims)) + sides + struct.pack("<IQ", kind, offset)


def pair(name, kind, data):
    return text(name) + struct.pack("<I", kind) + data


def header(tensors=(), pairs=(), version=3, magic=b"GGUF", counts=None):
    counts = counts or (len(tensors), len(pairs))
    start = magic + struct.pack("<IQQ", version, *counts)
    return start + b"".join(pairs) + b"".join(tensors)


def file_of(start, data=b"\0" * 68):
    return start + b"\0" * (-len(start) % 32) + data


@pytest.fixture
def opened(tmp_path):
    """``opened(data)`` -> the open file of these bytes."""
    files = []

    def run(data):
        path = tmp_path / "model.gguf"
        path.write_bytes(data)
        files.append(GGUFFile(path))
        return files[-1]

    yield run
    for file in files:
        file.close()


def test_what_the_package_writes_is_read_back(tmp_path, normal):
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    path = tmp_path / "model.gguf"
    weight = normal(6, 64).numpy()
    types = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(path, "flux")
    writer.add_array("comfy.gguf.orig_shape.conv", [6, 4, 4, 4])
    writer.add_array("tokens", ["a"] * 100)
    writer.add_tensor("plain", weight)
    writer.add_tensor("half", weight.astype(np.float16))
    writer.add_tensor("bf16", gguf.quantize(weight, types.BF16), raw_dtype=types.BF16)
    writer.add_tensor("packed", gguf.quantize(weight, types.Q5_1), raw_dtype=types.Q5_1)
    writer.add_tensor("bias", weight[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFFile(path) as file:
        assert file.metadata["general.architecture"] == "flux"
        assert file.metadata["comfy.gguf.orig_shape.conv"] == [6, 4, 4, 4]
        assert file.metadata["tokens"] is None
        assert {n: (t.type, t.shape) for n, t in file.tensors.items()} == {
            "plain": (None, (6, 64)),
            "half": (None, (6, 64)),
            "bf16": (None, (6, 64)),
            "packed": ("Q5_1", (6, 64)),
            "bias": (None, (64,)),
        }
        assert np.array_equal(file.read("plain").numpy(), weight)
        assert np.array_equal(file.read("half").numpy(), weight.astype(np.float16))
        assert torch.equal(file.read("bf16"), torch.from_numpy(weight).bfloat16())
        assert np.array_equal(file.read("packed").numpy(), gguf.quantize(weight, types.Q5_1))
        assert file.nbytes == sum(file.read(name).nbytes for name in file.tensors)


HUGE = 2**63
HOSTILE = {
    "empty": (b"", "ends within its header (0 bytes)"),
    "another kind": (file_of(header(magic=b"PK\3\4")), "is not a GGUF file"),
    "pickle": (b"\x80\x04\x95" + b"\0" * 99, "is not a GGUF file"),
    "version 1": (file_of(header(version=1)), "is GGUF of version 1"),
    "big endian": (file_of(header(version=3 << 24)), "only little-endian 2 and 3"),
    "tensor count": (header(counts=(HUGE, 0)), "ends within its header"),
    "pair count": (header(counts=(0, HUGE)), "ends within its header"),
    "name length": (header(counts=(1, 0)) + struct.pack("<Q", HUGE), "has a name of"),
    "name bytes": (file_of(header([tensor(b"\xff\xfe")])), "a name that is not text"),
    "text length": (
        header(pairs=[pair("k", 8, struct.pack("<Q", HUGE))]),
        "ends within its header",
    ),
    "array length": (
        header(pairs=[pair("k", 9, struct.pack("<IQ", 4, HUGE))]),
        "ends within its header",
    ),
    "array of texts": (
        header(pairs=[pair("k", 9, struct.pack("<IQ", 8, HUGE))]),
        "ends within its header",
    ),
    "nested arrays": (
        header(pairs=[pair("k", 9, struct.pack("<IQ", 9, 1) * 1000)]) + b"\0" * 99,
        "an array of the kind 9",
    ),
    "value kind": (header(pairs=[pair("k", 99, b"\0" * 9)]), "a value of the kind 99"),
    "same key": (file_of(header(pairs=[pair("k", 0, b"\0")] * 2)), "the key 'k' twice"),
    "same tensor": (file_of(header([tensor(), tensor(offset=68)])), "the tensor 'w' twice"),
    "dimensions": (file_of(header([tensor(dims=(1,) * 9)])), "a tensor of 9 dimensions"),
    "no dimension": (file_of(header([tensor(dims=())])), "a tensor of 0 dimensions"),
    "size": (file_of(header([tensor(dims=(2**62, 2**62))])), "it is truncated"),
    "type": (file_of(header([tensor(kind=77)])), "stores 'w' as GGML type 77"),
    "row": (file_of(header([tensor(dims=(33, 2))])), "as Q8_0 with rows of 33 weights"),
    "truncated": (file_of(header([tensor()]))[:-1], "it is truncated"),
    "overlap": (
        file_of(header([tensor("a"), tensor("b", offset=32)]), b"\0" * 160),
        "where another tensor lies",
    ),
    "alignment": (
        file_of(header([tensor()], [pair("general.alignment", 4, struct.pack("<I", 0))])),
        "the alignment 0",
    ),
    "shard": (
        file_of(header([tensor()], [pair("split.count", 2, struct.pack("<H", 3))])),
        "one of several shards",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_at_once_in_one_line(opened, case):
    """At once: within some hundred calls, whatever counts the file claims."""
    data, fault = HOSTILE[case]
    with pytest.raises(QuantizationError) as error:
        function_calls(lambda: opened(data), limit=1000)
    assert str(error.value).startswith("model.gguf ") and fault in str(error.value)
    assert "\n" not in str(error.value)


def test_the_files_above_are_hostile_by_one_thing_alone(opened):
    file = opened(file_of(header([tensor()], [pair("k", 4, struct.pack("<I", 7))])))
    assert file.metadata == {"k": 7} and file.read("w").shape == (2, 34)


def test_any_header_cut_off_anywhere_is_refused(opened):
    whole = file_of(header([tensor()], [pair("k", 9, struct.pack("<IQ", 4, 2) + b"\0" * 8)]))
    for length in range(len(whole)):
        with pytest.raises(QuantizationError):
            opened(whole[:length])
