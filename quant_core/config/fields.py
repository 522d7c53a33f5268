"""The kinds of settings that a configuration's dictionary has: each with its default and its check.

A check takes the key and the value as it was read, and gives back the value as it is kept: lists as
tuples, dtypes as their names. ConfigError names the key, the value and what is valid.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field
from typing import Any

import torch

from ..errors import ConfigError, UnknownNameError

Check = Callable[[str, Any], Any]

COMPUTE_DTYPES = ("float32", "float16", "bfloat16", "float64")
# What bitsandbytes packs 4-bit codes into.
STORAGE_DTYPES = ("uint8", "int8", "float16", "bfloat16", "float32", "float64")


def flag(default: bool) -> Any:
    return _field(default, _is(bool, "true or false"))


def number(default: float) -> Any:
    def check(key: str, value: Any) -> float:
        if type(value) not in (int, float) or not 0 <= value < float("inf"):
            raise _wrong(key, value, "a number, 0 or more")
        return float(value)

    return _field(default, check)


def size(default: int | None = None) -> Any:
    """A positive whole number, or None."""
    return _field(default, _optional(lambda v: type(v) is int and v > 0, "a positive whole number"))


def axis(default: int | None = None) -> Any:
    """A dimension of the weight, or None."""
    return _field(default, _optional(lambda v: type(v) is int and -5 <= v < 5, "a dimension"))


def names(default: tuple[str, ...] | None = None) -> Any:
    """A list of texts; None means the default."""

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
    def check(key: str, value: Any) -> str:
        if value not in valid:
            raise ConfigError(str(UnknownNameError(f"value of {key}", value, valid)), (key,))
        return value

    return _field(default, check)


def dtype(default: str, valid: tuple[str, ...] = COMPUTE_DTYPES) -> Any:
    """A dtype, or its name with or without "torch."; None means the default."""

    def check(key: str, value: Any) -> str:
        if value is None:
            return default
        name = str(value) if isinstance(value, torch.dtype) else value
        name = name.removeprefix("torch.") if isinstance(name, str) else name
        if name not in valid:
            raise ConfigError(str(UnknownNameError(f"dtype of {key}", value, valid)), (key,))
        return name

    return _field(default, check)


def checked_by(check: Check, default: Any = MISSING) -> Any:
    return _field(default, check)


def document() -> Any:
    """A JSON object that is kept as it is, or None."""

    def check(key: str, value: Any) -> dict[str, Any] | None:
        if value is not None and not isinstance(value, Mapping):
            raise _wrong(key, value, "an object { }")
        return copy.deepcopy(dict(value)) if value is not None else None

    return field(default=None, hash=False, metadata={"check": check})


def nothing() -> Any:
    """What a dictionary may name and no file can hold: only None."""
    return _field(None, _optional(lambda value: False, "null: a function is not read from text"))


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
    except TypeError:
        shown = repr(value)
    return ConfigError(f"{key} is {shown}. It has to be {words}.", (key,))
