"""The chosen format of every layer, to save and to apply to a sibling model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import FitError
from ..formats import Format, format_from_dict
from ..planning.decisions import (
    KEEP,
    QUANTIZE,
    LayerPlan,
    Plan,
)
from .json_file import read_text, replace_text

VERSION = 1
KIND = "graphquant_recipe"


@dataclass(frozen=True)
class Recipe:
    """formats: by layer; None for a layer that stays as it is. shapes: of the layers' weights."""

    formats: Mapping[str, Format | None]
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, plan: Plan) -> Recipe:
        """What ``plan`` decides for the layers that it could quantize."""
        return cls(
            {layer.name: layer.format for layer in plan.layers},
            {layer.name: layer.shape for layer in plan.layers},
        )

    def apply(self, plan: Plan) -> Plan:
        """``plan`` with this recipe's formats; it must be of a model with the same layers, such as
        a fine-tune. FitError names the first layer that differs.

        What ``plan`` itself keeps or finds quantized already stays so.
        """
        own = {layer.name: layer.shape for layer in plan.layers}
        for name, shape in own.items():
            if name not in self.shapes:
                raise self._another(f"it does not know {name}")
            if self.shapes[name] != shape:
                raise self._another(f"{name} is {shape} here and {self.shapes[name]} there")
        missing = next((name for name in self.shapes if name not in own), None)
        if missing is not None:
            raise self._another(f"{missing} is not here")
        layers = tuple(
            with_format(layer, self.formats[layer.name], "the recipe keeps it")
            if layer.action == QUANTIZE
            else layer
            for layer in plan.layers
        )
        return replace(plan, layers=layers)

    @staticmethod
    def _another(difference: str) -> FitError:
        return FitError(
            f"The recipe is of another model: {difference}. Use one of the same architecture."
        )

    def to_json(self) -> str:
        """As text, to save and to share."""
        layers = {
            name: {"shape": list(shape), "format": fmt and fmt.to_dict()}
            for (name, shape), fmt in zip(self.shapes.items(), self.formats.values(), strict=True)
        }
        return json.dumps({KIND: VERSION, "layers": layers}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """FitError where ``text`` is not what ``to_json`` writes."""
        try:
            values = json.loads(text)
            if values[KIND] != VERSION:
                raise ValueError
            layers = values["layers"]
            formats = {
                name: None if each["format"] is None else format_from_dict(each["format"])
                for name, each in layers.items()
            }
            shapes = {name: tuple(map(int, each["shape"])) for name, each in layers.items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise FitError("This is not a recipe. Give a file that Recipe.save wrote.") from None
        return cls(formats, shapes)

    def save(self, path: str | Path) -> None:
        """Write the file at once: what was there stays until the new one is whole."""
        replace_text(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """The one in a file that ``save`` wrote. FitError names the file."""
        return read_text(path, cls.from_json)


def with_format(layer: LayerPlan, fmt: Format | None, reason_to_keep: str) -> LayerPlan:
    """``layer`` in another format; None leaves it as it is."""
    if fmt is None:
        size = layer.bytes_before
        return replace(layer, action=KEEP, reason=reason_to_keep, format=None, bytes_after=size)
    return layer.in_format(fmt, "")
