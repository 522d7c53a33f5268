"""The kinds of settings that a configuration's dictionary has: each with its default and its check.

A check takes the key and the value as it was read, and gives back the value as it is kept: lists as
tuples, dtypes as their names. ConfigError names the key, the value and what is valid.

Tested by tests/quant_core/config/test_quant_config.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field
from typing import Any

import torch

from ..errors import ConfigError, UnknownNameError
from .frozen import freeze, plain

# A larger whole number may not fit into a float.
_LARGEST = 1e300

Check = Callable[[str, Any], Any]

COMPUTE_DTYPES = ("float32", "float16", "bfloat16", "float64")
# What bitsandbytes packs 4-bit codes into.
STORAGE_DTYPES = ("uint8", "int8", "float16", "bfloat16", "float32", "float64")


def flag(default: bool) -> Any:
    """A field that is true or false."""
    return _field(default, _is(bool, "true or false"))


def number(default: float) -> Any:
    """A field that holds a finite number of at least 0."""

    def check(key: str, value: Any) -> float:
        if type(value) not in (int, float) or not 0 <= value < _LARGEST:
            raise _wrong(key, value, "a number, 0 or more")
        return float(value)

    return _field(default, check)


def size(default: int | None = None) -> Any:
    """A field that holds a positive whole number, or None."""
    return _field(default, _optional(lambda v: type(v) is int and v > 0, "a positive whole number"))


def axis(default: int | None = None) -> Any:
    """A field that holds a dimension of the weight, or None."""
    return _field(default, _optional(lambda v: type(v) is int and -5 <= v < 5, "a dimension"))


def names(default: tuple[str, ...] | None = None) -> Any:
    """A field that holds a list of texts; None in a dictionary means the default."""

    def check(key: str, value: Any) -> tuple[str, ...] | None:
        if value is None:
            return default
        if not isinstance(value, list | tuple):
            raise _wrong(key, value, "a list of names")
        for at, name in enumerate(value):
            if not isinstance(name, str) or not name.strip():
                error = _wrong(key, name, "a name in quotation marks")
                raise ConfigError(str(error), (key, at))
        return tuple(value)

    return _field(default, check)


def choice(valid: tuple[str, ...], default: Any = MISSING) -> Any:
    """A field that holds one of the ``valid`` texts. It is required unless it has a default."""

    def check(key: str, value: Any) -> str:
        if not isinstance(value, str) or value not in valid:
            raise ConfigError(str(UnknownNameError(f"value of {key}", value, valid)), (key,))
        return value

    return _field(default, check)


def dtype(default: torch.dtype, valid: tuple[str, ...] = COMPUTE_DTYPES) -> Any:
    """A field that holds a torch.dtype. It also reads the name, with or without "torch."; None
    means the default."""

    def check(key: str, value: Any) -> torch.dtype:
        if value is None:
            return default
        name = str(value) if isinstance(value, torch.dtype) else value
        name = name.removeprefix("torch.") if isinstance(name, str) else name
        if not isinstance(name, str) or name not in valid:
            raise ConfigError(str(UnknownNameError(f"dtype of {key}", value, valid)), (key,))
        return getattr(torch, name)

    return _field(default, check)


def checked_by(check: Check, default: Any = MISSING) -> Any:
    """A field whose values pass through ``check`` (key, value), which returns what is kept or
    raises ConfigError."""
    return _field(default, check)


def document() -> Any:
    """A field that holds a JSON object that cannot be changed, or None."""

    def check(key: str, value: Any) -> Mapping[str, Any] | None:
        return None if value is None else json_object(key, value)

    return field(default=None, hash=False, metadata={"check": check})


def json_object(key: str, value: Any) -> Mapping[str, Any]:
    """``value``, frozen. ConfigError where JSON could not hold it."""
    if not isinstance(value, Mapping):
        raise _wrong(key, value, "an object { }")
    try:
        plain(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{key} holds what JSON cannot: {error}.", (key,)) from None
    return freeze(value)


def function() -> Any:
    """A function, which no file can hold, or None."""
    return _field(None, _optional(callable, "null: a function is not read from text"))


def _field(default: Any, check: Check) -> Any:
    return field(default=default, metadata={"check": check})


def _is(kind: type, words: str) -> Check:
    def check(key: str, value: Any) -> Any:
        if type(value) is not kind:
            raise _wrong(key, value, words)
        return value

    return check


def _optional(holds: Callable[[Any], bool], words: str) -> Check:
    def check(key: str, value: Any) -> Any:
        if value is not None and not holds(value):
            raise _wrong(key, value, words)
        return value

    return check


def _wrong(key: str, value: Any, words: str) -> ConfigError:
    try:
        shown = json.dumps(value)
    except (TypeError, ValueError):
        shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}..."
    return ConfigError(f"{key} is {shown}. It has to be {words}.", (key,))
