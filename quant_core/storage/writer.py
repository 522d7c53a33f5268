"""A safetensors file written one tensor at a time, verified, and only then given its name."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import BinaryIO

import torch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from ..errors import StorageError
from .header import Header, TensorSpec, encode_header
from .reader import TensorFile

GIB = 1024**3

log = logging.getLogger(__name__)


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
    beside it is removed, and what killed processes left of the same target goes first.
    StorageError: the file exists (unless ``overwrite``), too little space, a tensor that is not as
    announced, bytes that read back differently.
    """
    target = Path(target)
    prefix, header = encode_header(specs, metadata)
    refuse_to_replace(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    _require_space(target, header.size)
    on_bytes = on_bytes or (lambda count: None)
    temporary, file = _temporary_file(target)
    try:
        with file:
            hashes = _write(file, prefix, header, tensors, on_bytes)
            if fcntl is None:
                file.close()  # Windows renames no open file
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
    if target.is_dir():
        raise StorageError(f"{target.name} in {target.parent} is a folder. Choose another name.")
    if target.exists() and not overwrite:
        raise StorageError(
            f"{target.name} exists in {target.parent} with other content. Choose another name, or "
            "turn overwrite on."
        )


def _temporary_file(target: Path) -> tuple[Path, BinaryIO]:
    """A new file beside ``target``, locked for as long as it is open: see ``_remove_abandoned``."""
    while True:
        path = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        file = path.open("xb")
        _lock(file, wait=True)
        if path.exists():  # not taken for abandoned before it was locked
            return path, file
        file.close()


def _remove_abandoned(target: Path) -> None:
    """Removes temporary files of ``target`` that no process holds: theirs was killed, or the power
    went. Leaves them where files cannot be locked, as on Windows."""
    for path in target.parent.glob(f".{escape(target.name)}.{'[0-9a-f]' * 8}.part"):
        with contextlib.suppress(OSError), path.open("r+b") as file:
            if _lock(file):
                path.unlink()
                log.info("Removed %s, left by a process that was killed.", path)


def _lock(file: BinaryIO, wait: bool = False) -> bool:
    """Whether ``file`` is now locked by this open file alone. The system unlocks it when the file
    is closed or the process ends, however it ends."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # held by another, or a drive without locks
        return False
    return True


def _require_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise StorageError(
            f"{target.name} needs {needed / GIB:.2f} GiB, but {free / GIB:.2f} GiB are free in "
            f"{target.parent}. Make room there, or choose a smaller format."
        )


def _write(
    file: BinaryIO,
    prefix: bytes,
    header: Header,
    tensors: Iterable[tuple[str, torch.Tensor]],
    on_bytes: Callable[[int], None],
) -> dict[str, bytes]:
    hashes: dict[str, bytes] = {}
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
        raise StorageError(f"{len(missing)} tensors were announced, not written: {min(missing)}.")
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
