"""Where measured sensitivities lie: models/graphquant_sensitivity, a JSON file an architecture."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import folder_paths
from torch import nn

from ....quant_core.calibration import Fingerprint, fingerprint_of
from ....quant_core.errors import FitError
from ....quant_core.fit import Sensitivity
from ....quant_core.fit.json_file import replace_text

FOLDER = "graphquant_sensitivity"
_PARTIAL = ".partial"

log = logging.getLogger(__name__)


def sensitivity_folder() -> Path:
    """The folder, beside ComfyUI's models. Files that are put there are found by themselves."""
    return Path(folder_paths.models_dir) / FOLDER


def file_for(architecture: str, model: Fingerprint) -> Path:
    """The file of one architecture: its name, and the hash of its layers' names and shapes."""
    name = re.sub(r"[^\w-]", "_", architecture)
    return sensitivity_folder() / f"{name}-{model.layers}.json"


def find_sensitivity(model: nn.Module) -> tuple[Sensitivity | None, tuple[str, ...]]:
    """What was measured for the architecture of ``model``, whatever its file is called, and notes.

    A file of this very model is preferred to a sibling's. An unreadable file becomes a note.
    """
    own, notes = fingerprint_of(model), []
    found: list[tuple[bool, Path, Sensitivity]] = []
    for file in sorted(sensitivity_folder().glob("*.json")):
        try:
            text = file.read_text("utf-8")
            if own.layers not in text:
                continue
            sensitivity = Sensitivity.from_json(text)
        except (FitError, OSError, UnicodeDecodeError) as error:
            notes.append(f"sensitivity: {file.name} was passed over: {error}")
            continue
        if sensitivity.model.layers == own.layers:
            found.append((sensitivity.model.difference(own) is not None, file, sensitivity))
    if not found:
        return None, tuple(notes)
    _, file, sensitivity = min(found, key=lambda each: each[0])
    notes.append(f"sensitivity: found in models/{FOLDER}/{file.name}.")
    return sensitivity, tuple(notes)


def require_fitting(sensitivity: Sensitivity, model: nn.Module) -> tuple[str, ...]:
    """A note where ``sensitivity`` was measured on a sibling of ``model``, such as what it was
    fine-tuned from. FitError where it is of another architecture."""
    own = fingerprint_of(model)
    if sensitivity.model.layers != own.layers:
        raise FitError(
            f"The sensitivity is of another architecture, {sensitivity.architecture}: its layers "
            "have other names or shapes. Connect one that was measured on a model like this one."
        )
    if sensitivity.model.difference(own) is None:
        return ()
    return (
        "sensitivity: measured on a sibling with the same layers, not on this very model. That "
        "serves a fine-tune; measure this one to be sure.",
    )


class PartialRun:
    """The effects that a run has measured so far, in a file beside the one it will write, so that a
    cancelled run goes on where it stopped. key: what the run measures, and how."""

    def __init__(self, target: Path, key: str):
        self._file, self._key = target.with_suffix(_PARTIAL), key

    def load(self) -> dict[str, dict[str, float]]:
        """By unit, the effects of its layers; nothing where another run left the file."""
        try:
            values = json.loads(self._file.read_text("utf-8"))
            units = values["units"] if values["key"] == self._key else {}
            return {
                unit: {name: float(effect) for name, effect in effects.items()}
                for unit, effects in units.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def save(self, units: Mapping[str, Mapping[str, float]]) -> None:
        """Keep what was measured until now."""
        replace_text(self._file, json.dumps({"key": self._key, "units": units}))

    def end(self) -> None:
        """The run is done: remove the file."""
        self._file.unlink(missing_ok=True)
