"""Which model a file holds, from the names and shapes of its tensors alone.

Tested by tests/nodes/bridge/architecture/test_recognition.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import StorageError
from .signatures import DIFFUSION_MODELS, TEXT_ENCODERS, Shapes, Signature

CHECKPOINT_PREFIX = "model.diffusion_model."
"""What the names of the diffusion model begin with in a whole checkpoint."""
# What they may begin with, as ComfyUI knows them.
PREFIXES = ("", CHECKPOINT_PREFIX, "diffusion_model.", "model.model.", "net.", "model.")


@dataclass(frozen=True)
class Recognised:
    """One model of a file.

    architecture: the family's name, or "unknown". component: "transformer" or "encoder". preset:
    the name of its preset, or None where the generic rule applies. prefix: what all of its
    tensors' names begin with.
    """

    architecture: str
    component: str
    preset: str | None
    prefix: str = ""


UNKNOWN = Recognised("unknown", "transformer", None)


def recognise(shapes: Shapes) -> Recognised:
    """The model whose tensors have ``shapes``, by name: a diffusion model, else a text encoder.

    A model of no known family is ``UNKNOWN``. In a whole checkpoint it is the diffusion model.
    StorageError where two diffusion models, or two text encoders, are in one file.
    """
    found = _diffusion_models(shapes) or _matching(shapes, TEXT_ENCODERS, "encoder", ("",))
    if len(found) > 1:
        told = " and ".join(_told(model) for model in found[:2])
        raise StorageError(
            f"The file holds the names of two models, {told}. Split it, and convert each."
        )
    if found:
        return found[0]
    if any(name.startswith(CHECKPOINT_PREFIX) for name in shapes):
        return Recognised("unknown", "transformer", None, CHECKPOINT_PREFIX)
    return UNKNOWN


def _diffusion_models(shapes: Shapes) -> list[Recognised]:
    return _matching(shapes, DIFFUSION_MODELS, "transformer", PREFIXES)


def _matching(
    shapes: Shapes, signatures: Iterable[Signature], component: str, prefixes: Iterable[str]
) -> list[Recognised]:
    signatures = tuple(signatures)
    return [
        Recognised(signature.architecture, component, signature.preset, prefix)
        for prefix in prefixes
        if not prefix or any(name.startswith(prefix) for name in shapes)
        for signature in signatures
        if signature.matches(shapes, prefix)
    ]


def _told(model: Recognised) -> str:
    return f"{model.architecture} at {model.prefix!r}" if model.prefix else model.architecture
