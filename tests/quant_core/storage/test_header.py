"""A safetensors header is written as the safetensors library reads it, and believed if true."""

import json
import struct

import pytest
import torch

from graphquant.quant_core.errors import StorageError
from graphquant.quant_core.storage.header import (
    DTYPES,
    MAX_HEADER_BYTES,
    TensorSpec,
    encode_header,
    header_length,
    parse_header,
)

SPECS = (
    TensorSpec("codes", torch.int8, (3, 5)),
    TensorSpec("scale", torch.float32, (3, 1)),
    TensorSpec("bias", torch.bfloat16, (3,)),
    TensorSpec("empty", torch.float32, (0,)),
    TensorSpec("scalar", torch.float32, ()),
)
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def parse(entries, data_bytes=8):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return parse_header(text, 8 + len(text) + data_bytes)


def test_a_header_reads_back_as_it_was_written():
    prefix, header = encode_header(SPECS, {"b": "2", "a": "1"})
    length = header_length(prefix[:8], header.size)
    assert length == len(prefix) - 8
    assert parse_header(prefix[8:], header.size) == header
    assert set(header.specs.values()) == set(SPECS)
    assert header.size == len(prefix) + 15 + 12 + 6 + 0 + 4


def test_every_tensor_is_aligned_to_its_itemsize():
    _, header = encode_header(SPECS, {})
    for name, spec in header.specs.items():
        assert header.starts[name] % spec.dtype.itemsize == 0


def test_every_dtype_of_the_library_is_known():
    from safetensors.torch import _TYPES

    unsupported = {"F8_E4M3FNUZ", "F8_E5M2FNUZ"}  # of AMD's MI300 alone; ComfyUI knows neither
    assert {k: v for k, v in _TYPES.items() if k not in unsupported}.items() <= DTYPES.items()


@pytest.mark.parametrize(
    "entries, fault",
    [
        (b"[1]", "not a JSON object"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":1,"a":1}', "a name occurs twice"),
        ({"t": 5}, "without dtype, shape and data_offsets"),
        ({"t": {**ENTRY, "more": 1}}, "without dtype, shape and data_offsets"),
        ({"t": {**ENTRY, "dtype": "F3"}}, "dtype 'F3'"),
        ({"t": {**ENTRY, "dtype": ["F32"]}}, "which is unknown"),
        ({"t": {**ENTRY, "shape": [-2]}}, "shape [-2]"),
        ({"t": {**ENTRY, "shape": [2.0]}}, "shape [2.0]"),
        ({"t": {**ENTRY, "shape": [True, 2]}}, "shape [True, 2]"),
        ({"t": {**ENTRY, "shape": [2**63, 0]}}, "which is none"),
        ({"t": {**ENTRY, "shape": [1] * 9}}, "which is none"),
        ({"t": {**ENTRY, "data_offsets": [0]}}, "not a place"),
        ({"t": {**ENTRY, "data_offsets": [0, 8, 9]}}, "not a place"),
        ({"t": {**ENTRY, "data_offsets": [8, 0]}}, "'t' at bytes 8 to 0"),
        ({"t": {**ENTRY, "data_offsets": [4, 12]}}, "where 0 to 8 was expected"),
        ({"t": {**ENTRY, "data_offsets": [0, 4]}}, "where 0 to 8 was expected"),
        ({"t": ENTRY, "u": ENTRY}, "where 8 to 16 was expected"),
        ({"t": {**ENTRY, "data_offsets": [0, 2**60]}}, "not a place"),
        ({"__metadata__": {"a": 1}, "t": ENTRY}, "metadata that are not texts"),
        ({"__metadata__": [], "t": ENTRY}, "metadata that are not texts"),
    ],
)
def test_a_header_that_can_not_be_true_is_refused(entries, fault):
    with pytest.raises(StorageError) as error:
        parse(entries)
    assert fault in str(error.value)


def test_a_file_of_another_length_than_its_tensors_is_refused():
    with pytest.raises(StorageError, match="3 bytes short: it is truncated"):
        parse({"t": ENTRY}, data_bytes=5)
    with pytest.raises(StorageError, match="2 too long"):
        parse({"t": ENTRY}, data_bytes=10)


@pytest.mark.parametrize(
    "first, size, fault",
    [
        (b"", 0, "0 bytes long"),
        (b"\0" * 7, 7, "7 bytes long"),
        (struct.pack("<Q", MAX_HEADER_BYTES + 1), 2**40, "not a safetensors file"),
        (struct.pack("<Q", 2**64 - 1), 100, "not a safetensors file"),
        (struct.pack("<Q", 93), 100, "truncated"),
    ],
)
def test_a_length_that_can_not_be_true_is_refused(first, size, fault):
    with pytest.raises(StorageError, match=fault):
        header_length(first, size)


def test_a_header_too_large_for_the_library_is_not_written():
    with pytest.raises(StorageError, match="more than safetensors allows"):
        encode_header(SPECS, {"note": "x" * MAX_HEADER_BYTES})
