"""What the metadata of a quantized file say: its source, and what was done to it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping

from ..planning.decisions import KEEP, Plan
from ..storage import LAYERS, PREFIX
from ..storage.foreign import TORCHAO_NAMES
from ..storage.stock import METADATA as STOCK_LAYERS
from ..version import VERSION

METHOD, PRESET, KEPT = f"{PREFIX}method", f"{PREFIX}preset", f"{PREFIX}keep"
_GRANULARITY, _VERSION = f"{PREFIX}granularity", f"{PREFIX}version"
_SOURCE, _HASH = f"{PREFIX}source", f"{PREFIX}source_sha256"
# True of the source's tensors, not of ours.
_NOT_INHERITED = frozenset(("format", "modelspec.hash_sha256", STOCK_LAYERS, LAYERS))
_BLOCK = 16 * 1024 * 1024
_HASHES: dict[tuple[str, int, int], str] = {}  # a source of 24 GB is hashed once


def plan_metadata(plan: Plan, before: Mapping[str, str]) -> dict[str, str]:
    """What ``plan`` did to a model, added to what was done to it ``before``."""
    kept: dict[str, list[str]] = {}
    for layer in plan.with_action(KEEP):
        kept.setdefault(layer.reason, []).append(layer.name)
    done = {
        METHOD: ", ".join(filter(None, (before.get(METHOD), plan.method))),
        PRESET: plan.preset or "none",
        _GRANULARITY: plan.granularity,
        KEPT: json.dumps(kept),
    }
    return {**before, **done}


def inheritable(metadata: Mapping[str, str]) -> dict[str, str]:
    """The part of a source's ``metadata`` that is also true of a quantized copy.

    None of torchao's is: it describes torchao's own tensors, each under the tensor's name.
    """
    if TORCHAO_NAMES in metadata:
        return {}
    return {k: v for k, v in metadata.items() if k not in _NOT_INHERITED}


def source_metadata(source: str | None, on_bytes: Callable[[int], None]) -> dict[str, str]:
    """This version, and name and hash of the file ``source``, if it is one.

    on_bytes: gets the bytes hashed, as they are.
    """
    stamp = _stamp(source)
    if stamp is None:
        return {_VERSION: VERSION}
    return {
        _VERSION: VERSION,
        _SOURCE: os.path.basename(stamp[0]),
        _HASH: _sha256(stamp, on_bytes),
    }


def bytes_to_hash(source: str | None) -> int:
    """How much ``source_metadata`` has to read: nothing of a file that was hashed before."""
    stamp = _stamp(source)
    return 0 if stamp is None or stamp in _HASHES else stamp[1]


def file_sha256(path: str, on_bytes: Callable[[int], None]) -> str:
    """Of the file's bytes, hexadecimal; hashed once while it stays as it is."""
    return _sha256(_stamp(path), on_bytes)


def _stamp(path: str | None) -> tuple[str, int, int] | None:
    """Path, size and time of a file: what its hash is remembered by."""
    if path is None or not os.path.isfile(path):
        return None
    status = os.stat(path)
    return path, status.st_size, status.st_mtime_ns


def _sha256(stamp: tuple[str, int, int], on_bytes: Callable[[int], None]) -> str:
    if stamp not in _HASHES:
        digest = hashlib.sha256()
        with open(stamp[0], "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                on_bytes(len(block))
        _HASHES[stamp] = digest.hexdigest()
    return _HASHES[stamp]
