"""Where a model came from and what was done to it: noted on its patcher, written into its file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from comfy.model_patcher import ModelPatcher

from ....quant_core.conversion.metadata import (
    KEPT,
    inheritable,
    plan_metadata,
    source_metadata,
)
from ....quant_core.errors import StorageError
from ....quant_core.planning.decisions import Plan
from ....quant_core.storage import TensorFile

_ATTACHMENT = "graphquant"


@dataclass(frozen=True)
class Provenance:
    """A model's history. source: the file that it was read from, if known. metadata: what was done
    to it since, as a file's header says it."""

    source: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def kept(self) -> dict[str, str]:
        """The reason for every layer that was kept in full precision."""
        reasons = json.loads(self.metadata.get(KEPT, "{}"))
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
    return Provenance(before.source, plan_metadata(plan, before.metadata))


def file_metadata(provenance: Provenance, on_bytes: Callable[[int], None]) -> dict[str, str]:
    """All that goes into a header, but for the layers. ComfyUI reads some architectures' settings
    from the metadata, so what the source had is kept. on_bytes: as the source is hashed."""
    return inherited(provenance) | source_metadata(provenance.source, on_bytes)


def inherited(provenance: Provenance) -> dict[str, str]:
    """What a header tells of the model before it was saved: the settings that its source had, and
    what was done since."""
    return {**_inherited(provenance.source), **provenance.metadata}


def read_provenance(metadata: Mapping[str, str], source: str | None) -> Provenance:
    """The provenance that a file's metadata tell. source: the file itself, or None for one of ours:
    the source of a copy is its original's."""
    return Provenance(source, inheritable(metadata))


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
    return inheritable(file.header.metadata)
