"""The errors of this package, one type for each cause: the fact first, then the remedy."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class QuantizationError(ValueError):
    """The base of all errors of this package about its input; a ValueError."""

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        # ComfyUI shows the class before the message, by its module: here a path of the user's disk.
        cls.__module__ = "graphquant"


class UnknownNameError(QuantizationError):
    """A method, preset, granularity or component was named that does not exist."""

    def __init__(self, kind: str, name: object, valid: Iterable[str], aliases: Iterable[str] = ()):
        """aliases: valid too, and too many to tell but for the nearest."""
        valid = tuple(valid)
        close = difflib.get_close_matches(str(name).lower(), (*valid, *aliases), n=3)
        hint = f"Did you mean {' or '.join(close)}? " if close else ""
        known = f"Valid: {', '.join(valid)}." if valid else "It takes none."
        super().__init__(f"Unknown {kind} {name!r}. {hint}{known}")


class ArgumentError(QuantizationError):
    """An argument is of a kind that the function does not take."""


def require_kind(argument: str, value: object, kinds: type | tuple[type, ...], remedy: str) -> None:
    """Check that ``value`` is of one of ``kinds``: ArgumentError where it is not. remedy: the
    sentence that says what to give."""
    if not isinstance(value, kinds):
        raise ArgumentError(f"{argument} is {value!r:.60}. {remedy}")


def require_path(argument: str, value: object) -> None:
    """ArgumentError where ``value`` is not a path."""
    require_kind(argument, value, (str, Path), "Give the path as a text or a pathlib.Path.")


def require_callable(argument: str, value: object) -> None:
    """ArgumentError where ``value`` is neither None nor a function."""
    if value is not None and not callable(value):
        raise ArgumentError(f"{argument} is {value!r:.60}. Give a function, or None.")


class UnsupportedMethodError(QuantizationError):
    """A method was asked for that the component cannot have, or that is not supported here."""


class ConfigError(QuantizationError):
    """A configuration has a wrong key or value.

    path: to the key, (section,) or (section, key). at_key: the key itself is wrong, not its value.
    """

    def __init__(self, message: str, path: tuple[str, ...] = (), *, at_key: bool = False):
        super().__init__(message)
        self.path = path
        self.at_key = at_key


class CalibrationError(QuantizationError):
    """A static scale has no measured activations, or those of another model."""


class PatternError(QuantizationError):
    """An include pattern matches no layer, or a text is not a valid pattern."""


class CastingError(QuantizationError):
    """Layerwise casting was applied twice, or removed where it was not applied."""


class ModuleError(QuantizationError):
    """What was given as ``model`` is not an nn.Module, or a weight of it holds no values."""


class NothingToQuantizeError(QuantizationError):
    """Every layer was filtered out."""


class NonFiniteWeightError(QuantizationError):
    """A weight holds NaN or infinity."""


class FitError(QuantizationError):
    """Nothing fits the size that the method "fit" was given, or a file of sensitivities or of a
    recipe is not what it should be."""


class StorageError(QuantizationError):
    """A file cannot be written, or is not what it says it is."""


class ClusterError(QuantizationError):
    """Ray is not installed, or no cluster answers."""


class TorchAOError(ImportError):
    """torchao is missing or too old."""


_REMEDIES = {
    errno.ENOSPC: "Make room on that disk, or write elsewhere; what was there before stays.",
    errno.EDQUOT: "Your quota is used up: make room, or write elsewhere.",
    errno.EACCES: "Check its permissions, or name another place.",
    errno.EPERM: "Check its permissions, or name another place.",
    errno.EROFS: "That disk can only be read: name another place.",
    errno.ENOTDIR: "Part of that path is a file: name a folder.",
    errno.EEXIST: "Part of that path is a file: name a folder.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


def in_words(error: OSError) -> str:
    """What the operating system's ``error`` is, and its remedy."""
    where = f" {error.filename}" if error.filename else ""
    remedy = _REMEDIES.get(error.errno, "Check the path and the disk.")
    return f"{error.strerror or error}{where}. {remedy}"


@contextmanager
def told_in_words() -> Iterator[None]:
    """Turns an error of the operating system inside the block into a StorageError with its
    remedy."""
    try:
        yield
    except OSError as error:
        raise StorageError(in_words(error)) from error
