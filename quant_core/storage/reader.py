"""Tensors read from safetensors files, one at a time, into memory of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import torch

from ..errors import StorageError
from .header import LENGTH_BYTES, MAX_HEADER_BYTES, Header, TensorSpec, header_length, parse_header

INDEX_SUFFIX = ".safetensors.index.json"


class TensorFile:
    """One open safetensors file. StorageError, with the file's name and the fault, where its header
    is wrong."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file = self.path.open("rb")
        try:
            self.header = self._read_header()
        except StorageError as error:
            self.close()
            raise StorageError(
                f"{self.path.name} {error}. Download or save it again; nothing was loaded."
            ) from None
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> Header:
        size = self._file.seek(0, 2)
        self._file.seek(0)
        length = header_length(self._file.read(LENGTH_BYTES), size)
        return parse_header(self._file.read(length), size)

    def read(self, name: str) -> torch.Tensor:
        """The tensor called ``name``, on the CPU."""
        spec = self.header.specs[name]
        data = torch.empty(spec.nbytes, dtype=torch.uint8)
        self._file.seek(self.header.starts[name])
        if self._file.readinto(data.numpy()) != spec.nbytes:
            raise StorageError(f"{self.path.name} ends within {name!r}. Download or save it again.")
        return data.view(spec.dtype).view(spec.shape)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorFiles:
    """The tensors of one file, or of all shards that an index names; a context manager.

    specs and metadata are those of all files together; where metadata differ, the first file's
    count.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with ExitStack() as opened:
            files = self._open(opened)
            self._opened = opened.pop_all()
        self._places = files
        self.specs: dict[str, TensorSpec] = {
            name: file.header.specs[name] for name, file in files.items()
        }
        self.files = list(dict.fromkeys(files.values()))
        self.metadata: dict[str, str] = {}
        for file in reversed(self.files):
            self.metadata |= file.header.metadata

    def _open(self, opened: ExitStack) -> dict[str, TensorFile]:
        def open_file(path: Path) -> TensorFile:
            file = TensorFile(path)
            opened.callback(file.close)
            return file

        if not self.path.name.endswith(INDEX_SUFFIX):
            file = open_file(self.path)
            return dict.fromkeys(file.header.specs, file)
        weight_map = read_index(self.path)
        names = sorted(set(weight_map.values()))
        shards = {shard: open_file(self.path.with_name(shard)) for shard in names}
        for shard, file in shards.items():
            _check_shard(self.path.name, shard, file.header, weight_map)
        return {name: shards[shard] for name, shard in weight_map.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(spec.nbytes for spec in self.specs.values())

    def read(self, name: str) -> torch.Tensor:
        """The tensor called ``name``, on the CPU."""
        return self._places[name].read(name)

    def __enter__(self) -> TensorFiles:
        return self

    def __exit__(self, *_) -> None:
        self._opened.close()


def read_index(path: Path) -> dict[str, str]:
    """The file name of each tensor, from an index {"weight_map": ...}. The files lie beside it."""
    if path.stat().st_size > MAX_HEADER_BYTES:
        raise StorageError(f"{path.name} is too large for an index. Download it again.")
    try:
        weight_map = json.loads(path.read_bytes().decode())["weight_map"]
        names = set(weight_map.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(f"{path.name} has no weight_map. Download it again.") from error
    for name in names:
        plain = isinstance(name, str) and name == Path(name.replace("\\", "/")).name
        if not plain or not name.endswith(".safetensors"):
            raise StorageError(
                f"{path.name} names the file {name!r}, which is not a .safetensors file beside it. "
                "Download it again from a source you trust."
            )
        if not path.with_name(name).is_file():
            raise StorageError(f"{path.name} needs {name}, which is missing. Put it beside it.")
    return weight_map


def _check_shard(index: str, shard: str, header: Header, weight_map: Mapping[str, str]) -> None:
    expected = {name for name, file in weight_map.items() if file == shard}
    differing = sorted(expected ^ set(header.specs))
    if differing:
        raise StorageError(
            f"{index} and {shard} disagree on {len(differing)} tensors, such as {differing[0]!r}. "
            "Download both again from one place."
        )
