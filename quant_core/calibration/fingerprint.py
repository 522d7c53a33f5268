"""A fingerprint of a model, which is the same for its quantized copies.

Quantizing leaves biases and normalizations as they are, so values of these, beside the names and
shapes of the layers, tell one model from another, whatever its matrices are stored in.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import nn

from ..detect import quantized_as
from ..errors import CalibrationError, ModuleError
from ..layers import supported_layers

_VALUES_EACH, _VALUES = 4, 1024
_TOLERANCE = 0.1
"""Relative L2 between the values of one model in two dtypes: FP8 rounds by 0.03."""


@dataclass(frozen=True)
class Fingerprint:
    """layers: a hash of the Linear layers' names and shapes. values: of parameters that no method
    quantizes, evenly picked."""

    layers: str
    values: tuple[float, ...]

    def difference(self, other: Fingerprint) -> str | None:
        """Why ``other`` is another model, in words, or None where it is this one or a copy."""
        if self.layers != other.layers:
            return "its layers have other names or shapes"
        if len(self.values) != len(other.values):
            return "it has other biases and normalizations"
        own, others = (torch.tensor(each.values, dtype=torch.float64) for each in (self, other))
        if (own - others).norm() > _TOLERANCE * own.norm():
            return "its biases and normalizations have other values"
        return None


def fingerprint_of(model: nn.Module) -> Fingerprint:
    """The fingerprint of ``model``: reads a few values of each of its vectors.
    ModuleError where these are on the meta device."""
    layers = sorted(
        f"{name} {tuple(module.weight.shape)}"
        for name, kind, module in supported_layers(model, "transformer")
        if kind == "Linear"
    )
    digest = hashlib.sha256("\n".join(layers).encode()).hexdigest()[:16]
    values: list[float] = []
    for name, parameter in sorted(model.named_parameters(), key=lambda item: item[0]):
        plain = quantized_as(parameter) is None and not parameter.is_complex()
        if plain and parameter.dim() == 1 and len(values) < _VALUES:
            if parameter.is_meta:
                raise ModuleError(
                    f"{name} is on the meta device and has no values. Load the weights of the "
                    "model first."
                )
            picked = parameter.detach()[:: -(-len(parameter) // _VALUES_EACH)]
            values += picked.float().cpu().tolist()
    return Fingerprint(digest, tuple(values))


def require_same_model(made_of: Fingerprint | None, model: nn.Module) -> None:
    """Raises CalibrationError where a calibration ``made_of`` one model is used for another. None:
    the model that it was made of is unknown, which is accepted."""
    if made_of is None:
        return
    difference = made_of.difference(fingerprint_of(model))
    if difference is not None:
        raise CalibrationError(
            f"The calibration is of another model than this one: {difference}. "
            "Calibrate the MODEL that is quantized, or a quantized copy of it."
        )
