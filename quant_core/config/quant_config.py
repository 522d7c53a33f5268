"""One quantization, as one of the field's libraries writes it down: a frozen value.

Every backend's dictionary has a class of its own, whose fields carry that dictionary's names. What
all have in common is their ``meaning``: the method and the layers that this pack reads from them.
"""

from __future__ import annotations

import difflib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ..errors import ConfigError, QuantizationError, UnknownNameError
from ..methods import named_method
from .frozen import plain

CONFIGS: dict[str, type[QuantConfig]] = {}


class QuantizationMethod(str, Enum):
    """The libraries whose dictionaries are read, by the name in ``quant_method``. Each member is
    its text, so that it compares, formats and goes into JSON as one."""

    BITS_AND_BYTES = "bitsandbytes"
    GGUF = "gguf"
    TORCHAO = "torchao"
    QUANTO = "quanto"
    MODELOPT = "modelopt"
    VLLM_OMNI = "fp8"
    GRAPHQUANT = "graphquant"

    __str__ = str.__str__
    __format__ = str.__format__


METHOD_KEY = "quant_method"
NESTED = "quantization_config"


def register_config(cls: type[QuantConfig]) -> type[QuantConfig]:
    """Class decorator: makes ``QuantConfig.from_dict`` know ``cls`` by its ``quant_method``."""
    CONFIGS[cls.quant_method] = cls
    return cls


@dataclass(frozen=True)
class Meaning:
    """What a configuration means to this pack.

    method: the name of a method. granularity: None where the configuration does not say. include,
    exclude: patterns of layer names (see ``patterns``). notes: sentences about settings that have
    no effect.
    """

    method: str
    granularity: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class QuantConfig(ABC):
    """One quantization as a library writes it down; each library has a subclass.

    ConfigError (a ValueError) for a value that is invalid, or that another value excludes.
    """

    quant_method: ClassVar[QuantizationMethod]
    # What decides the method: faults of the method are pointed at there.
    method_key: ClassVar[str] = ""

    def __post_init__(self):
        for each in fields(self):
            kept = each.metadata["check"](each.name, getattr(self, each.name))
            object.__setattr__(self, each.name, kept)
        self.check()

    def check(self) -> None:  # noqa: B027 - most dictionaries have no such rule
        """Raises ConfigError where values exclude each other."""

    def checked_meaning(self) -> Meaning:
        """``meaning``, once it is sure that its method exists; kept after the first call.
        ConfigError otherwise."""
        return self._checked

    @cached_property
    def _checked(self) -> Meaning:
        meaning = self.meaning()
        try:
            named_method(meaning.method)
        except QuantizationError as error:
            raise ConfigError(str(error), (self.method_key,)) from None
        return meaning

    @abstractmethod
    def meaning(self) -> Meaning:
        """What this configuration means here. ConfigError where it means nothing here."""

    def to_dict(self) -> dict[str, Any]:
        """Every setting as the library itself writes it; ``from_dict`` reads it back."""
        values = {each.name: plain(getattr(self, each.name)) for each in fields(self)}
        return {METHOD_KEY: str(self.quant_method), **values}

    def to_diff_dict(self) -> dict[str, Any]:
        """As ``to_dict``, without the settings that have their default values."""
        values = self.to_dict()
        same = {each.name for each in fields(self) if getattr(self, each.name) == _default(each)}
        return {key: value for key, value in values.items() if key not in same}

    def to_json_string(self, use_diff: bool = True) -> str:
        """As JSON text. use_diff: only settings that differ from their defaults, else every one."""
        values = self.to_diff_dict() if use_diff else self.to_dict()
        return json.dumps(values, indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | Path) -> None:
        """Write every setting to ``json_file_path``, as JSON."""
        Path(json_file_path).write_text(self.to_json_string(use_diff=False), encoding="utf-8")

    def update(self, **values: Any) -> tuple[QuantConfig, dict[str, Any]]:
        """A copy with those of ``values`` that are settings of this class, and a dictionary of the
        others."""
        own = {key: value for key, value in values.items() if key in self.keys()}
        unused = {key: value for key, value in values.items() if key not in own}
        return replace(self, **own), unused

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """The names of all settings, as the library's dictionary has them."""
        return tuple(each.name for each in fields(cls))

    @classmethod
    def all_keys(cls) -> frozenset[str]:
        """``keys``, and other spellings that ``read`` understands."""
        return frozenset(cls.keys())

    @classmethod
    def read(cls, values: dict[str, Any]) -> dict[str, Any]:
        """``values`` with the library's other spellings of keys replaced by those of this class."""
        return values

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """The inverse of ``to_dict``; on QuantConfig itself, of any backend's dictionary.

        values may also be the whole config.json of a model that has a ``quantization_config``.
        kwargs override its values. With return_unused_kwargs the result is the configuration and
        those of kwargs that it has no key for; otherwise such a one is an error, as an unknown key
        always is. ConfigError names the key or value, and the nearest valid ones.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"A configuration is a dictionary, not a {type(values).__name__}. "
                'Write {"quant_method": ..., ...}.'
            )
        if NESTED in values:
            return _below(NESTED, cls.from_dict, values[NESTED], return_unused_kwargs, **kwargs)
        kind = _kind(values) if cls is QuantConfig else cls
        values = {key: value for key, value in values.items() if key != METHOD_KEY}
        values = kind.read(values)
        _require_known(kind, values)
        _require_complete(kind, values)
        config, unused = kind(**values).update(**kwargs)
        if return_unused_kwargs:
            return config, unused
        _require_known(kind, unused)
        return config


def _below(key: str, read: Any, values: Any, *arguments: Any, **kwargs: Any) -> Any:
    """``read`` on ``values``, which stand at ``key``: so do the faults that it finds."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{key} is not an object {{ }}.", (key,))
    try:
        return read(values, *arguments, **kwargs)
    except ConfigError as error:
        raise ConfigError(str(error), (key, *error.path), at_key=error.at_key) from None


def _kind(values: Mapping[str, Any]) -> type[QuantConfig]:
    """The class whose dictionary ``values`` are: by its name, else by its keys."""
    if METHOD_KEY in values:
        name = values[METHOD_KEY]
        if not isinstance(name, str) or name not in CONFIGS:
            raise ConfigError(str(UnknownNameError(METHOD_KEY, name, CONFIGS)), (METHOD_KEY,))
        return CONFIGS[name]
    if "_class_name" in values or "model_type" in values:
        raise ConfigError(
            f"This config.json has no {NESTED}: its model is not quantized. "
            "Write the name of a method instead."
        )
    found = [kind for kind in CONFIGS.values() if values.keys() <= kind.all_keys() and values]
    if len(found) > 1 and "method" in values:
        method = values["method"]
        return CONFIGS["fp8" if method == "fp8" else "graphquant"]
    if len(found) != 1:
        raise _not_recognised(values)
    return found[0]


def _not_recognised(values: Mapping[str, Any]) -> ConfigError:
    """Names the first key that no library has, and the nearest that some library has."""
    owners = {key: str(name) for name, kind in CONFIGS.items() for key in kind.all_keys()}
    add = f'Add "{METHOD_KEY}": one of {", ".join(map(str, CONFIGS))}.'
    for key in values:
        if key in owners:
            continue
        near = difflib.get_close_matches(str(key), owners, n=1)
        meant = f"Did you mean {near[0]} of {owners[near[0]]}? " if near else ""
        return ConfigError(f"No library has the key {key!r}. {meant}{add}", (key,), at_key=True)
    return ConfigError(f"Nothing says which library's dictionary this is. {add}")


def _require_known(kind: type[QuantConfig], values: Mapping[str, Any]) -> None:
    known = kind.keys()
    for key in values:
        if key not in known:
            message = str(UnknownNameError(f"key of {kind.quant_method}", key, known))
            raise ConfigError(message, (key,), at_key=True)


def _require_complete(kind: type[QuantConfig], values: Mapping[str, Any]) -> None:
    for each in fields(kind):
        if _default(each) is MISSING and each.name not in values:
            raise ConfigError(f"A dictionary of {kind.quant_method} needs {each.name}. Add it.")


def _default(each: Field) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()
