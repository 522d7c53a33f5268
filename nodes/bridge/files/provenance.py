"""Where a model came from and what was done to it: noted on its patcher, written into its file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from comfy.model_patcher import ModelPatcher

from ....quant_core.errors import StorageError
from ....quant_core.planning.plan import KEEP, Plan
from ....quant_core.storage import LAYERS, PREFIX, TensorFile
from ....quant_core.version import VERSION

_ATTACHMENT = "graphquant"
METHOD, PRESET = f"{PREFIX}method", f"{PREFIX}preset"
_KEPT, _SOURCE, _HASH = f"{PREFIX}keep", f"{PREFIX}source", f"{PREFIX}source_sha256"
# True of the source's tensors, not of ours.
_NOT_INHERITED = frozenset(("format", "modelspec.hash_sha256", "_quantization_metadata", LAYERS))
_BLOCK = 16 * 1024 * 1024
_HASHES: dict[tuple[str, int, int], str] = {}  # a source of 24 GB is hashed once


@dataclass(frozen=True)
class Provenance:
    """source: the file that the model was read from, if known. metadata: for the file's header."""

    source: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def kept(self) -> dict[str, str]:
        """The reason for every layer that was kept in full precision."""
        reasons = json.loads(self.metadata.get(_KEPT, "{}"))
        return {layer: reason for reason, layers in reasons.items() for layer in layers}


def provenance_of(patcher: ModelPatcher) -> Provenance:
    """What is noted on ``patcher``, else the file that ComfyUI would read it from again."""
    return patcher.get_attachment(_ATTACHMENT) or Provenance(_file_of(patcher))


def note_provenance(patcher: ModelPatcher, provenance: Provenance) -> None:
    """Clones of ``patcher`` carry the note on."""
    patcher.set_attachments(_ATTACHMENT, provenance)


def quantized_by(source: ModelPatcher, plan: Plan) -> Provenance:
    """The provenance of what ``plan`` made of ``source``."""
    before = provenance_of(source)
    kept: dict[str, list[str]] = {}
    for layer in plan.with_action(KEEP):
        kept.setdefault(layer.reason, []).append(layer.name)
    done = {
        METHOD: ", ".join(filter(None, (before.metadata.get(METHOD), plan.method))),
        PRESET: plan.preset or "none",
        f"{PREFIX}granularity": plan.granularity,
        _KEPT: json.dumps(kept),
    }
    return Provenance(before.source, {**before.metadata, **done})


def file_metadata(provenance: Provenance, on_bytes: Callable[[int], None]) -> dict[str, str]:
    """All that goes into a header, but for the layers. ComfyUI reads some architectures' settings
    from the metadata, so what the source had is kept. on_bytes: as the source is hashed."""
    metadata = {**_inherited(provenance.source), **provenance.metadata}
    metadata[f"{PREFIX}version"] = VERSION
    stamp = _stamp(provenance.source)
    if stamp is not None:
        metadata[_SOURCE] = os.path.basename(stamp[0])
        metadata[_HASH] = _sha256(stamp, on_bytes)
    return metadata


def read_provenance(metadata: Mapping[str, str], source: str | None) -> Provenance:
    """From a file's metadata. source: the file itself, or None for one of ours: the source of a
    copy is its original's."""
    return Provenance(source, _heritable(metadata))


def bytes_to_hash(provenance: Provenance) -> int:
    """How much ``file_metadata`` has to read."""
    stamp = _stamp(provenance.source)
    return 0 if stamp is None or stamp in _HASHES else stamp[1]


def _file_of(patcher: ModelPatcher) -> str | None:
    _, arguments, *_ = patcher.cached_patcher_init or (None, ())
    paths = (value for value in arguments if isinstance(value, str) and os.path.isfile(value))
    return next(paths, None)


def _inherited(source: str | None) -> dict[str, str]:
    if source is None or not Path(source).is_file():
        return {}
    try:
        file = TensorFile(source)
    except StorageError:  # a .ckpt, or safetensors of a kind that only its loader knows
        return {}
    file.close()
    return _heritable(file.header.metadata)


def _heritable(metadata: Mapping[str, str]) -> dict[str, str]:
    """torchao's metadata describe its own tensors, each under the tensor's name."""
    from ....quant_core.storage.foreign import TORCHAO_NAMES

    if TORCHAO_NAMES in metadata:
        return {}
    return {k: v for k, v in metadata.items() if k not in _NOT_INHERITED}


def _stamp(path: str | None) -> tuple[str, int, int] | None:
    """Path, size and time of a file: what its hash is remembered by."""
    if path is None or not os.path.isfile(path):
        return None
    status = os.stat(path)
    return path, status.st_size, status.st_mtime_ns


def file_sha256(path: str, on_bytes: Callable[[int], None]) -> str:
    """Of the file's bytes, hexadecimal; hashed once while it stays as it is."""
    return _sha256(_stamp(path), on_bytes)


def _sha256(stamp: tuple[str, int, int], on_bytes: Callable[[int], None]) -> str:
    if stamp not in _HASHES:
        digest = hashlib.sha256()
        with open(stamp[0], "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                on_bytes(len(block))
        _HASHES[stamp] = digest.hexdigest()
    return _HASHES[stamp]
