"""What can be wrong, one type a cause. Messages open with the fact and end with the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class QuantizationError(ValueError):
    """Base of all refusals of this package."""

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        # ComfyUI shows the class before the message, by its module: here a path of the user's disk.
        cls.__module__ = "graphquant"


class UnknownNameError(QuantizationError):
    """A method, preset, granularity or component that does not exist."""

    def __init__(self, kind: str, name: object, valid: Iterable[str], aliases: Iterable[str] = ()):
        """aliases: valid too, and too many to tell but for the nearest."""
        valid = tuple(valid)
        close = difflib.get_close_matches(str(name).lower(), (*valid, *aliases), n=3)
        hint = f"Did you mean {' or '.join(close)}? " if close else ""
        super().__init__(f"Unknown {kind} {name!r}. {hint}Valid: {', '.join(valid)}.")


class UnsupportedMethodError(QuantizationError):
    """A method that the component cannot have."""


class ConfigError(QuantizationError):
    """A configuration that cannot be. path: to the key, (section,) or (section, key). at_key: the
    key itself is wrong, not its value."""

    def __init__(self, message: str, path: tuple[str, ...] = (), *, at_key: bool = False):
        super().__init__(message)
        self.path = path
        self.at_key = at_key


class CalibrationError(QuantizationError):
    """A static scale without a measured activation, or one measured on something else."""


class PatternError(QuantizationError):
    """An include pattern that means no layer, or a text that is no pattern."""


class CastingError(QuantizationError):
    """Layerwise casting applied twice, or removed where there is none."""


class NothingToQuantizeError(QuantizationError):
    """Every layer was filtered out."""


class NonFiniteWeightError(QuantizationError):
    """A weight holds NaN or infinity."""


class StorageError(QuantizationError):
    """A file that can't be written, or that is not what it says it is."""


class TorchAOError(ImportError):
    """torchao is missing or too old."""
