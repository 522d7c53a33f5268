"""Dictionaries and lists of a configuration as values that cannot be changed in place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch


class FrozenDict(dict):
    """A dictionary whose changes are refused; equal to a plain one of the same items."""

    def _refuse(self, *_: Any, **__: Any) -> None:
        raise TypeError("A configuration cannot be changed. update(...) gives another one.")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple:
        return FrozenDict, (dict(self),)


def freeze(value: Any) -> Any:
    """``value`` with its mappings frozen and its lists as tuples, all the way down."""
    if isinstance(value, Mapping):
        return FrozenDict((key, freeze(each)) for key, each in value.items())
    return tuple(map(freeze, value)) if isinstance(value, list | tuple) else value


def plain(value: Any) -> Any:
    """``value`` as JSON gives it back: lists, dictionaries of texts, dtypes by name.

    TypeError or ValueError for what JSON cannot hold.
    """
    return json.loads(json.dumps(value, default=_name))


def _name(value: Any) -> str:
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    raise TypeError(f"{type(value).__name__} {value!r:.80}")
