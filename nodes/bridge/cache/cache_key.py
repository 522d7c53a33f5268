"""The key of a quantization in the cache: equal keys have bit-equal results.

It hashes the model file's hash, the patches that are pending, every layer's format, this pack's and
PyTorch's version, and the kind of device that does the arithmetic.

Tested by tests/nodes/bridge/cache/test_weight_cache.py.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.quant_ops import QuantizedTensor
from comfy.weight_adapter.base import WeightAdapterBase

from ....quant_core.conversion.metadata import file_sha256
from ....quant_core.planning.decisions import Plan
from ....quant_core.sources import float_weight
from ....quant_core.version import VERSION
from ..files.provenance import provenance_of

# Values of each live weight that go into the key, in case it is not what the file holds.
_PROBES = 64


class UncacheableError(Exception):
    """Raised where a pending patch has no content that could be hashed. Its text follows
    "because"."""


def cache_key(
    patcher: ModelPatcher,
    prefix: str,
    plan: Plan,
    device: torch.device | None,
    hashes: SourceHashes,
) -> str:
    """Hexadecimal, of the unloaded ``patcher`` and ``plan``, whose layers are called ``prefix`` +
    name. device: where the arithmetic runs. Without a known source file every weight is hashed."""
    source = provenance_of(patcher).source
    known = hashes.of(source) if source is not None and os.path.isfile(source) else None
    digest = hashlib.sha256()
    _feed(digest, [VERSION, torch.__version__, "cpu" if device is None else device.type, known])
    for layer in plan.quantized:
        weight_key = f"{prefix}{layer.name}.weight"
        weight = float_weight(comfy.utils.get_attr(patcher.model, f"{prefix}{layer.name}"), device)
        _feed(digest, [layer.name, layer.tied_to, layer.format.to_dict()])
        _feed(digest, weight if known is None else _probe(weight))
        _feed(digest, patcher.patches.get(weight_key))
    return digest.hexdigest()


def _probe(weight: torch.Tensor) -> list:
    values = weight.reshape(-1)
    step = max(1, len(values) // _PROBES)
    return [list(weight.shape), values[::step].clone()]


def _feed(digest: hashlib._Hash, value: object) -> None:
    """Everything with its kind and size, so that no two values have the same bytes."""
    if isinstance(value, QuantizedTensor) or not isinstance(value, _KINDS):
        raise UncacheableError(f"a pending patch holds a {type(value).__name__}")
    digest.update(type(value).__name__.encode())
    if isinstance(value, torch.Tensor):
        _feed(digest, [str(value.dtype), list(value.shape)])
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    elif isinstance(value, WeightAdapterBase):
        _feed(digest, value.weights)
    elif isinstance(value, dict):
        _feed(digest, list(value.items()))
    elif isinstance(value, (list, tuple)):
        digest.update(str(len(value)).encode())
        for item in value:
            _feed(digest, item)
    else:
        text = repr(value).encode()
        digest.update(f"{len(text)}:".encode() + text)


_KINDS = (torch.Tensor, WeightAdapterBase, dict, list, tuple, str, int, float, bool, type(None))


class SourceHashes:
    """The sha256 of model files, remembered in ``index`` by path, size and time of change."""

    def __init__(self, index: Path, on_bytes: Callable[[int], None]):
        self._index = index
        self._on_bytes = on_bytes

    def of(self, path: str) -> str:
        """The sha256 of the file, hexadecimal."""
        status = os.stat(path)
        stamp = [status.st_size, status.st_mtime_ns]
        known = self._read()
        entry = known.get(path)
        if isinstance(entry, list) and entry[:2] == stamp:
            return entry[2]
        found = file_sha256(path, self._on_bytes)
        self._write(known | {path: [*stamp, found]})
        return found

    def _read(self) -> dict[str, list]:
        try:
            known = json.loads(self._index.read_text("utf-8"))
        except (OSError, ValueError):  # none yet, or damaged: hashed again
            return {}
        return known if isinstance(known, dict) else {}

    def _write(self, known: dict[str, list]) -> None:
        self._index.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._index.with_suffix(f".{os.getpid()}.part")
        temporary.write_text(json.dumps(known, indent=1), "utf-8")
        os.replace(temporary, self._index)
