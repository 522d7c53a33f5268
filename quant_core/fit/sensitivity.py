"""What a layer does to the final latent: measured once for an architecture, kept as a small JSON.

One layer alone is rounded, a picture is sampled, and the change of the final latent is noted. Such
effects of several layers add in squares.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ..calibration import Fingerprint, fingerprint_of
from ..errors import FitError
from ..methods import named_method
from .candidates import format_error
from .json_file import read_text, replace_text

VERSION = 1
KIND = "graphquant_sensitivity"


@dataclass(frozen=True)
class Sensitivity:
    """The measured effects of a model's layers.

    architecture: its name. model: which model was measured. probe: the method that layers were
    rounded by. effects: by layer, the relative L2 of the final latent when it alone is rounded.
    sampling: the settings it was measured with, for readers. by_block: the effects of whole blocks
    were measured, and those of layers within one are shared out by local error.
    """

    architecture: str
    model: Fingerprint
    probe: str
    effects: Mapping[str, float]
    sampling: Mapping[str, Any] = field(default_factory=dict)
    by_block: bool = False

    def __post_init__(self):
        for name, effect in self.effects.items():
            if not is_amount(effect):
                raise FitError(f"The effect of {name} is {effect!r}. Measure the sensitivity anew.")

    def per_error(self, names: Iterable[str]) -> dict[str, float]:
        """The effect of each layer of ``names``, over the relative error of its weight. Of a layer
        that was not measured it is the median's of those that have one."""
        error = format_error(named_method(self.probe).method.choose((64, 1024), "per-row").format)
        usual = statistics.median([e for e in self.effects.values() if e] or [1.0])
        # A floor above zero, so that more bits still count as better for a layer without effect.
        least = usual / 1000
        return {name: max(self.effects.get(name, usual), least) / error for name in names}

    def to_json(self) -> str:
        """As text, to save and to share."""
        values = {
            KIND: VERSION,
            "architecture": self.architecture,
            "layers": self.model.layers,
            "probe": self.probe,
            "by_block": self.by_block,
            "sampling": dict(self.sampling),
            "effects": {name: float(f"{effect:.6g}") for name, effect in self.effects.items()},
            "values": [float(f"{value:.6g}") for value in self.model.values],
        }
        return json.dumps(values, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Sensitivity:
        """FitError where ``text`` is not what ``to_json`` writes."""
        try:
            values = json.loads(text)
            if values[KIND] != VERSION:
                raise FitError(
                    f"The sensitivity file is of version {values[KIND]!r}, and this pack reads "
                    f"{VERSION}. Update the pack, or measure anew."
                )
            model = Fingerprint(values["layers"], tuple(map(float, values["values"])))
            if not all(isinstance(values[key], str) for key in ("architecture", "probe", "layers")):
                raise TypeError
            if not isinstance(values["effects"], dict) or not isinstance(values["sampling"], dict):
                raise TypeError
            named_method(values["probe"])
            return cls(
                values["architecture"],
                model,
                values["probe"],
                values["effects"],
                values["sampling"],
                bool(values["by_block"]),
            )
        except FitError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError):
            raise FitError(
                "This is not a sensitivity file. Give one that Measure Sensitivity wrote."
            ) from None

    def save(self, path: str | Path) -> None:
        """Write the file at once: what was there stays until the new one is whole."""
        replace_text(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Sensitivity:
        """The one in a file that ``save`` wrote. FitError names the file."""
        return read_text(path, cls.from_json)


def is_amount(value: object) -> bool:
    """Whether ``value`` is a finite number of 0 or more."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value < math.inf


def architecture_hash(model: nn.Module) -> str:
    """What all models of one architecture and size share: a hash of their layers' names and
    shapes."""
    return fingerprint_of(model).layers
