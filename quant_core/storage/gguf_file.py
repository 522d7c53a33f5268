"""GGUF files (versions 2 and 3, little endian): the header read strictly, tensors one at a time.

A file is the magic, the version, two counts, key-value pairs, the tensors' descriptions, padding
to the alignment, and the tensors' bytes. Dimensions stand innermost first. Nothing is believed that
the size of the file does not bear out, and nothing is allocated by a count that is not checked.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..codes.ggml_blocks import BLOCK_TYPES
from ..errors import StorageError
from ..formats import QuantizedWeight
from ..formats.gguf import GGUF

GGUF_SUFFIX = ".gguf"

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_HEADER_BYTES = 100_000_000
_MAX_NAME_BYTES = 65_535
_MAX_DIMENSIONS = 5
_MAX_ARRAY_DEPTH = 2
_KEPT_ARRAY_LENGTH = 64

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS[12] = "d"
_STRING, _ARRAY = 8, 9

# Types that are not blocks, by ggml's number.
_PLAIN = {
    0: torch.float32,
    1: torch.float16,
    24: torch.int8,
    25: torch.int16,
    26: torch.int32,
    27: torch.int64,
    28: torch.float64,
    30: torch.bfloat16,
}
_BLOCKS = {block.number: block for block in BLOCK_TYPES.values()}


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor's entry in a GGUF file.

    shape: of the weight, outermost first. type: a name of BLOCK_TYPES, or None for a plain tensor
    of ``dtype``. start: position in the file, bytes.
    """

    name: str
    shape: tuple[int, ...]
    type: str | None
    dtype: torch.dtype
    start: int
    nbytes: int


class GGUFFile:
    """An open GGUF file whose header was checked; a context manager.

    tensors: by name. metadata: numbers, texts and short arrays; longer arrays are left out.
    StorageError for a header that is wrong.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file = self.path.open("rb")
        try:
            self.size = self._file.seek(0, 2)
            self._file.seek(0)
            self.metadata, self.tensors = _read_header(_Cursor(self._file, self.size))
        except StorageError as error:
            self.close()
            raise StorageError(
                f"{self.path.name} {error}. Download it again; nothing was loaded."
            ) from None
        except BaseException:
            self.close()
            raise

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def read(self, name: str) -> torch.Tensor:
        """The tensor called ``name``: plain, or its blocks as uint8 [..., bytes of a row]."""
        tensor = self.tensors[name]
        data = torch.empty(tensor.nbytes, dtype=torch.uint8)
        self._file.seek(tensor.start)
        if self._file.readinto(data.numpy()) != tensor.nbytes:
            raise StorageError(f"{self.path.name} ends within {name!r}. Download it again.")
        if tensor.type is None:
            return data.view(tensor.dtype).view(tensor.shape)
        return data.view(*tensor.shape[:-1], tensor.nbytes // math.prod(tensor.shape[:-1]))

    def read_weight(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> QuantizedWeight:
        """The tensor of blocks called ``name``, as a weight of ``shape``."""
        return GGUF(self.tensors[name].type).stored(self.read(name), shape, dtype)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _Cursor:
    """Reads onwards, never past the file's end nor past what a header may take."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._end, self.at = file, min(size, _MAX_HEADER_BYTES), 0
        self.size = size

    def require(self, count: int) -> None:
        if count > self._end - self.at:
            raise StorageError(f"ends within its header ({self.size} bytes), or is not a GGUF file")

    def take(self, count: int) -> bytes:
        self.require(count)
        self.at += count
        return self._file.read(count)

    def skip(self, count: int) -> None:
        self.require(count)
        self.at = self._file.seek(self.at + count)

    def number(self, code: str) -> Any:
        (value,) = struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))
        return value

    def name(self) -> str:
        length = self.number("Q")
        if length > _MAX_NAME_BYTES:
            raise StorageError(f"has a name of {length} bytes")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise StorageError("has a name that is not text") from None


def _read_header(cursor: _Cursor) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
    if cursor.take(4) != _MAGIC:
        raise StorageError("is not a GGUF file")
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise StorageError(f"is GGUF of version {version}, and only little-endian 2 and 3 are read")
    tensor_count, pair_count = cursor.number("Q"), cursor.number("Q")
    metadata = _collect(pair_count, "key", lambda: (cursor.name(), _value(cursor)))
    described = _collect(tensor_count, "tensor", lambda: (cursor.name(), _description(cursor)))
    if metadata.get("split.count", 1) != 1:
        raise StorageError("is one of several shards. Join them with llama-gguf-split --merge")
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise StorageError(f"has the alignment {alignment!r}, which is not a power of two")
    data = -(-cursor.at // alignment) * alignment
    tensors = {name: _tensor(name, data, *values) for name, values in described.items()}
    _check_places(tensors, cursor.size)
    return metadata, tensors


def _collect(count: int, kind: str, read: Callable[[], tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(count):
        name, value = read()
        if name in found:
            raise StorageError(f"has the {kind} {name!r} twice")
        found[name] = value
    return found


def _value(cursor: _Cursor) -> Any:
    kind = cursor.number("I")
    if kind == _ARRAY:
        return _array(cursor, 1)
    if kind == _STRING:
        return cursor.take(cursor.number("Q")).decode(errors="replace")
    if kind not in _SCALARS:
        raise StorageError(f"has a value of the kind {kind}, which is unknown")
    return cursor.number(_SCALARS[kind])


def _array(cursor: _Cursor, depth: int) -> list[Any] | None:
    """The values, or None where they are many or no numbers: a tokenizer's, for one."""
    kind, count = cursor.number("I"), cursor.number("Q")
    if kind in _SCALARS and count <= _KEPT_ARRAY_LENGTH:
        return [cursor.number(_SCALARS[kind]) for _ in range(count)]
    if kind in _SCALARS:
        cursor.skip(count * struct.calcsize(f"<{_SCALARS[kind]}"))
    elif kind == _STRING:
        cursor.require(8 * count)
        for _ in range(count):
            cursor.skip(cursor.number("Q"))
    elif kind == _ARRAY and depth < _MAX_ARRAY_DEPTH:
        cursor.require(12 * count)
        for _ in range(count):
            _array(cursor, depth + 1)
    else:
        raise StorageError(f"has an array of the kind {kind}, which is unknown")
    return None


def _description(cursor: _Cursor) -> tuple[tuple[int, ...], int, int]:
    """Shape, outermost first; ggml's number of the type; offset."""
    count = cursor.number("I")
    if not 1 <= count <= _MAX_DIMENSIONS:
        raise StorageError(f"has a tensor of {count} dimensions")
    sides = tuple(cursor.number("Q") for _ in range(count))
    return sides[::-1], cursor.number("I"), cursor.number("Q")


def _tensor(name: str, data: int, shape: tuple[int, ...], number: int, offset: int) -> GGUFTensor:
    start = data + offset
    if number in _PLAIN:
        dtype = _PLAIN[number]
        return GGUFTensor(name, shape, None, dtype, start, math.prod(shape) * dtype.itemsize)
    block = _BLOCKS.get(number)
    if block is None:
        known = ", ".join(BLOCK_TYPES)
        raise StorageError(f"stores {name!r} as GGML type {number}; known: F32, F16, BF16, {known}")
    if shape[-1] % block.size:
        raise StorageError(f"stores {name!r} as {block.name} with rows of {shape[-1]} weights")
    nbytes = math.prod(shape) // block.size * block.nbytes
    return GGUFTensor(name, shape, block.name, torch.uint8, start, nbytes)


def _check_places(tensors: dict[str, GGUFTensor], size: int) -> None:
    """Every tensor lies within the file, and no two share a byte."""
    end = 0
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.nbytes)):
        if tensor.start < end:
            raise StorageError(f"puts {tensor.name!r} where another tensor lies")
        end = tensor.start + tensor.nbytes
        if end > size:
            raise StorageError(f"ends within {tensor.name!r} ({size} bytes): it is truncated")
