"""No header, however it was come by, does more than raise StorageError.

What is accepted the safetensors library accepts as well, and reads the same.
"""

import json
import random
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from graphquant.quant_core.errors import StorageError
from graphquant.quant_core.formats import Float8, Int4
from graphquant.quant_core.storage import (
    StoredLayer,
    TensorFiles,
    check_stock_layers,
    find_layers,
    marker_name,
    marker_tensor,
)

# Names, numbers and words that mean something in a header, for mutations to hit upon.
TOKENS = (
    *(b"0", b"-1", b"8", b"1e9", b"18446744073709551615", b"null", b"true", b'""', b"[]", b"{}"),
    *(b'"F32"', b'"U8"', b'"int4"', b'"shape"', b".weight", b".comfy_quant", b"../", b"\\u0000"),
)


def a_file(path):
    """A file with layers of ours, a layer of ComfyUI's, and plain tensors."""
    tensors = {"graphquant.plain.weight": torch.arange(6.0).view(2, 3)}
    for number, fmt in enumerate([Int4(32), Float8()]):
        layer = StoredLayer(f"block.{number}", fmt, (4, 64))
        parts = layer.tensors(fmt.quantize(torch.ones(4, 64)))
        parts[marker_name(layer.name)] = marker_tensor(layer.to_dict())
        tensors |= {f"graphquant.{name}": tensor for name, tensor in parts.items()}
    tensors["graphquant.stock.weight"] = torch.ones(2, 2, dtype=torch.int8)
    tensors["graphquant.stock.weight_scale"] = torch.tensor(1.0)
    tensors["graphquant.stock.comfy_quant"] = marker_tensor({"format": "int8_tensorwise"})
    save_file(tensors, path, {"graphquant.method": "int4"})
    return path.read_bytes()


def read(path):
    """Everything that loading reads of a file before ComfyUI sees it; None where it is refused."""
    try:
        with TensorFiles(path) as files:
            prefix, layers = find_layers(files)
            check_stock_layers(files, {prefix + name for name in layers})
            for layer in layers.values():
                layer.read(files, prefix, torch.float32)
            return {name: files.read(name) for name in files.specs}
    except StorageError as error:
        assert str(error).startswith(path.name)
        return None


def same(a, b):
    """Bit by bit."""
    raw = (tensor.reshape(-1).view(torch.uint8) for tensor in (a, b))
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*raw)


_PLACE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
_EMPTY = {"dtype": "F32", "shape": [2**63, 0], "data_offsets": [0, 0]}
LET_THROUGH = {
    "a name twice": f'{{"t": {json.dumps(_PLACE)}, "t": {json.dumps(_PLACE)}}}',
    "an entry that is unknown": json.dumps({"t": {**_PLACE, "more": 1}}),
    "a shape that PyTorch cannot have": json.dumps({"t": _EMPTY}),
    "codes of four bits": json.dumps({"t": {**_PLACE, "dtype": "F4", "shape": [16]}}),
    "a dtype of one GPU alone": json.dumps({"t": {**_PLACE, "dtype": "F8_E4M3FNUZ", "shape": [8]}}),
    "seventy dimensions": json.dumps({"t": {**_PLACE, "shape": [2] + [1] * 69}}),
}


@pytest.mark.parametrize("header", LET_THROUGH.values(), ids=LET_THROUGH)
def test_what_the_library_lets_through_is_refused_here(tmp_path, header):
    """The reason why headers are checked here, and not by the library."""
    path = tmp_path / "m.safetensors"
    data = b"" if "[0, 0]" in header else bytes(8)
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + data)
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == ["t"]
    assert read(path) is None


def mutate(content, rng):
    content = bytearray(content)
    (length,) = struct.unpack("<Q", content[:8])
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(8 + length + 200 if rng.random() < 0.3 else 8 + length)
        kind = rng.randrange(5)
        if kind == 0:
            content[place % len(content)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[place : place + rng.randint(1, 9)] = rng.choice(TOKENS)
        elif kind == 2:
            del content[place : place + rng.randint(1, 40)]
        elif kind == 3:
            content[place:place] = content[place : place + rng.randint(1, 60)]
        else:
            lengths = [0, 1, length - 1, length + 1, 2**40, 2**64 - 1]
            content[:8] = struct.pack("<Q", rng.choice(lengths))
    return bytes(content)


def test_a_mutated_file_is_refused_or_read_as_the_library_reads_it(tmp_path):
    path = tmp_path / "m.safetensors"
    content = a_file(path)
    assert read(path) is not None
    rng = random.Random(0)
    refused = 0
    for _ in range(600):
        path.write_bytes(mutate(content, rng))
        found = read(path)
        if found is None:
            refused += 1
            continue
        expected = load_file(path)
        assert found.keys() == expected.keys()
        assert all(same(tensor, found[name]) for name, tensor in expected.items())
    assert 400 < refused < 600


BOUNDED = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
sizes = st.integers(-2, 64) | st.sampled_from([2**31, 2**63, 2**64, 10**30])
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "U8", "I8", "F8_E4M3", "F4", ""]) | json_values,
        "shape": st.lists(sizes, max_size=4) | json_values,
        "data_offsets": st.lists(sizes, min_size=2, max_size=2) | json_values,
    }
)
parts = ("weight", "weight_scale", "comfy_quant", "graphquant")
names = st.sampled_from(
    [f"{prefix}a.{part}" for prefix in ("", "graphquant.") for part in parts]
    + ["scaled_fp8", "__metadata__", ""]
)
headers = st.dictionaries(names, entries | json_values, max_size=5) | json_values


@settings(BOUNDED, max_examples=200)
@given(header=headers, data=st.binary(max_size=80))
def test_an_invented_header_is_refused_or_read(tmp_path, header, data):
    path = tmp_path / "m.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    read(path)


@settings(BOUNDED, max_examples=150)
@given(
    values=st.fixed_dictionaries(
        {},
        optional={
            "kind": st.sampled_from(["int4", "int8", "float8", "cast_float8"]) | json_values,
            "shape": st.just([4, 64]) | st.lists(sizes, max_size=4) | json_values,
            "group_size": st.sampled_from([32, 64, -32, 0, 1, 2**40]) | json_values,
            "algorithm": json_values,
            "dtype": st.sampled_from(["float8_e4m3fn", "float32", "nn", "load"]) | json_values,
            "granularity": json_values,
            "activations": json_values,
            "scaled": json_values,
        },
    )
)
def test_an_invented_marker_is_refused_or_read(tmp_path, values):
    path = tmp_path / "m.safetensors"
    parts = StoredLayer("a", Int4(32), (4, 64)).tensors(Int4(32).quantize(torch.ones(4, 64)))
    parts |= {marker_name("a"): marker_tensor(values)}
    save_file({f"graphquant.{name}": tensor for name, tensor in parts.items()}, path)
    read(path)


@pytest.mark.parametrize("length", range(0, 700, 23))
def test_a_file_cut_anywhere_is_refused(tmp_path, length):
    path = tmp_path / "m.safetensors"
    path.write_bytes(a_file(path)[:length])
    assert read(path) is None
