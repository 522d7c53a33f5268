"""The safetensors header, written and read strictly.

A file is 8 bytes of header length (little endian), the header as JSON, then every tensor's bytes
without gaps. Nothing in a header is believed that the file itself does not confirm.

The safetensors library (0.8) checks offsets as strictly, but lets through a name that occurs twice,
unknown entries, dtypes and shapes that PyTorch cannot have, and its errors do not say which bytes
are wrong (``test_hostile_headers.py``). It also maps the file into memory, where a tensor has to be
read into memory of its own so that the file can be replaced while a model is in use.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import StorageError

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}

LENGTH_BYTES = 8
# The safetensors library's own limit.
MAX_HEADER_BYTES = 100_000_000
_MAX_SIDE = 2**40
_MAX_DIMENSIONS = 8
_METADATA = "__metadata__"


@dataclass(frozen=True)
class TensorSpec:
    """The name, dtype and shape of one tensor of a file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Header:
    """What a safetensors file holds, and where.

    specs: by name. starts: each tensor's position in the file. size: of the whole file, bytes.
    """

    specs: dict[str, TensorSpec]
    starts: dict[str, int]
    metadata: dict[str, str]
    size: int


def encode_header(specs: Iterable[TensorSpec], metadata: Mapping[str, str]) -> tuple[bytes, Header]:
    """The first bytes of a file of ``specs``, and its Header.

    Wide dtypes come first, so that every tensor is aligned to its own itemsize. StorageError where
    the header would be larger than safetensors allows.
    """
    ordered = sorted(specs, key=lambda spec: (-spec.dtype.itemsize, spec.name))
    entries: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for spec in ordered:
        end = offset + spec.nbytes
        entries[spec.name] = {
            "dtype": _CODES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    if len(text) > MAX_HEADER_BYTES:
        raise StorageError(
            f"The header would take {len(text)} bytes, more than safetensors allows "
            f"({MAX_HEADER_BYTES}). Save a model of fewer tensors or less metadata."
        )
    data = LENGTH_BYTES + len(text)
    starts = {spec.name: data + entries[spec.name]["data_offsets"][0] for spec in ordered}
    header = Header({spec.name: spec for spec in ordered}, starts, dict(metadata), data + offset)
    return struct.pack("<Q", len(text)) + text, header


def header_length(first_bytes: bytes, file_size: int) -> int:
    """The length of the JSON text, from the file's first 8 bytes. StorageError where it cannot be
    true."""
    if len(first_bytes) < LENGTH_BYTES:
        raise StorageError(f"is {file_size} bytes long, too short for a safetensors file")
    (length,) = struct.unpack("<Q", first_bytes)
    if length > MAX_HEADER_BYTES:
        raise StorageError(f"claims a header of {length} bytes: it is not a safetensors file")
    if LENGTH_BYTES + length > file_size:
        raise StorageError(f"ends within its header ({file_size} bytes): it is truncated")
    return length


def parse_header(text: bytes, file_size: int) -> Header:
    """The Header in ``text``, checked against the size of its file.

    StorageError, whose message is to follow the file's name: text that is not a JSON object, a name
    that occurs twice, an unknown dtype, an impossible shape, offsets that overlap, leave gaps or
    disagree with shape and dtype, a file shorter or longer than its tensors.
    """
    entries = _json_object(text)
    metadata = _metadata(entries.pop(_METADATA, {}))
    data = LENGTH_BYTES + len(text)
    tensors = sorted((_entry(name, entry) for name, entry in entries.items()), key=lambda t: t[1:])
    offset = 0
    for spec, start, end in tensors:
        if start != offset or end - start != spec.nbytes:
            raise StorageError(
                f"puts {spec.name!r} at bytes {start} to {end}, where {offset} to "
                f"{offset + spec.nbytes} was expected"
            )
        offset = end
    if data + offset != file_size:
        lacking = data + offset - file_size
        fault = f"{lacking} bytes short: it is truncated" if lacking > 0 else f"{-lacking} too long"
        raise StorageError(f"is {fault}")
    specs = {spec.name: spec for spec, _, _ in tensors}
    starts = {spec.name: data + start for spec, start, _ in tensors}
    return Header(specs, starts, metadata, file_size)


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"has a header that is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise StorageError("has a header that is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name occurs twice")
    return values


def _metadata(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise StorageError("has metadata that are not texts")
    return value


def _entry(name: str, entry: object) -> tuple[TensorSpec, int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise StorageError(f"describes {name!r} without dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise StorageError(f"gives {name!r} the dtype {dtype!r}, which is unknown")
    if not _are_sizes(shape) or len(shape) > _MAX_DIMENSIONS:
        raise StorageError(f"gives {name!r} the shape {shape!r}, which is none")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise StorageError(f"puts {name!r} at {offsets!r}, which is not a place")
    return TensorSpec(name, DTYPES[dtype], tuple(shape)), offsets[0], offsets[1]


def _are_sizes(values: object) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v <= _MAX_SIDE for v in values)
