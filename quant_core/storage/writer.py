"""A safetensors file written one tensor at a time, verified, and only then given its name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from ..errors import StorageError
from .header import Header, TensorSpec, encode_header
from .reader import TensorFile

GIB = 1024**3


def write_file(
    target: str | Path,
    specs: Sequence[TensorSpec],
    tensors: Iterable[tuple[str, torch.Tensor]],
    metadata: Mapping[str, str],
    *,
    overwrite: bool = False,
    on_bytes: Callable[[int], None] | None = None,
    check: Callable[[Path], None] | None = None,
) -> int:
    """Writes ``tensors`` (name, tensor), in any order, as the file that ``specs`` announce.

    ``tensors`` may be a generator that makes each tensor when its turn comes: none is kept. Every
    tensor is read back and compared by hash. on_bytes gets the bytes done, each tensor counting
    twice (written, verified), and may raise, to cancel. check: gets the path of what was written
    before it has its name, and may raise. Returns the size of the file.

    Nothing called ``target`` changes until all is verified; whatever is raised, the temporary file
    beside it is removed. StorageError: the file exists (unless ``overwrite``), too little space, a
    tensor that is not as announced, bytes that read back differently.
    """
    target = Path(target)
    prefix, header = encode_header(specs, metadata)
    refuse_to_replace(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    _require_space(target, header.size)
    on_bytes = on_bytes or (lambda count: None)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        hashes = _write(temporary, prefix, header, tensors, on_bytes)
        _verify(temporary, header, hashes, on_bytes)
        if check is not None:
            check(temporary)
        refuse_to_replace(target, overwrite)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)
    return header.size


def holds_already(
    target: Path,
    specs: Sequence[TensorSpec],
    tensors: Iterable[tuple[str, torch.Tensor]],
    metadata: Mapping[str, str],
) -> bool:
    """Whether ``target`` is the very file that ``write_file`` would write, byte by byte.

    A header of another length or text is told without a look at a tensor, and ``tensors`` are asked
    for up to the first that differs.
    """
    prefix, header = encode_header(specs, metadata)
    if not target.is_file() or target.stat().st_size != header.size:
        return False
    with target.open("rb") as file:
        if file.read(len(prefix)) != prefix:
            return False
        for name, tensor in tensors:
            data = _bytes_of(tensor, header.specs.get(name), name)
            file.seek(header.starts[name])
            if file.read(len(data)) != data:
                return False
    return True


def refuse_to_replace(target: Path, overwrite: bool) -> None:
    """Raises StorageError where ``target`` exists, unless it is a file and ``overwrite`` is
    true."""
    if target.exists() and not (overwrite and target.is_file()):
        raise StorageError(
            f"{target.name} exists in {target.parent} with other content. Choose another name, or "
            "turn overwrite on."
        )


def _require_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise StorageError(
            f"{target.name} needs {needed / GIB:.2f} GiB, but {free / GIB:.2f} GiB are free in "
            f"{target.parent}. Make room there, or choose a smaller format."
        )


def _write(
    path: Path,
    prefix: bytes,
    header: Header,
    tensors: Iterable[tuple[str, torch.Tensor]],
    on_bytes: Callable[[int], None],
) -> dict[str, bytes]:
    hashes: dict[str, bytes] = {}
    with path.open("xb") as file:
        file.write(prefix)
        for name, tensor in tensors:
            data = _bytes_of(tensor, header.specs.get(name), name)
            file.seek(header.starts[name])
            file.write(data)
            hashes[name] = hashlib.sha256(data).digest()
            on_bytes(len(data))
        file.flush()
        os.fsync(file.fileno())
    missing = header.specs.keys() - hashes.keys()
    if missing:
        raise StorageError(f"{len(missing)} tensors were announced and never came: {min(missing)}.")
    return hashes


def _bytes_of(tensor: torch.Tensor, spec: TensorSpec | None, name: str) -> memoryview:
    found = TensorSpec(name, tensor.dtype, tuple(tensor.shape))
    if found != spec:
        raise StorageError(f"{name} came as {found}, where {spec} was announced.")
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _verify(
    path: Path, header: Header, hashes: Mapping[str, bytes], on_bytes: Callable[[int], None]
) -> None:
    written = TensorFile(path)
    try:
        if written.header != header:
            raise StorageError(f"The header read back from {path.parent} differs. Check that disk.")
        for name in header.specs:
            data = _bytes_of(written.read(name), header.specs[name], name)
            if hashlib.sha256(data).digest() != hashes[name]:
                raise StorageError(
                    f"{name} read back from {path.parent} differs from what was written. "
                    "Check that disk, then save elsewhere."
                )
            on_bytes(len(data))
    finally:
        written.close()


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where there is such a thing: not on Windows, nor on every
    network drive."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
