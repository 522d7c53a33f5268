"""Reads a configuration from text: a method's name, or JSON. Errors name the line and column."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from json.decoder import scanstring

from ..errors import ConfigError, require_kind
from ..methods import ALIASES, VALID_METHODS
from .graphquant import GraphQuantConfig
from .quant_config import QuantConfig

Path = tuple[str | int, ...]

_MAX_CHARACTERS = 1_000_000
_SPACE = " \t\r\n"


def config_from_text(text: str) -> QuantConfig:
    """Reads a configuration from a text: a method's name, a library's dictionary as JSON, or a
    model's whole config.json.

    ConfigError: its first line names line, column and what stands there, and the place is shown.
    """
    require_kind("text", text, str, "Give a configuration as a text, such as JSON.")
    if not text.strip():
        raise ConfigError('There is no text. Write a method, such as nf4, or JSON: {"method": ...}')
    if len(text) > _MAX_CHARACTERS:
        raise ConfigError(
            f"The text has {len(text)} characters: that is too long for a configuration."
        )
    if text.lstrip()[0] in "{[\"'":
        return _from_json(text)
    name = text.strip()
    try:
        return GraphQuantConfig(name)
    except ConfigError as error:
        at = text.index(name) + _wrong_from(name)
        raise _pointed(text, at, str(error)) from None


def _from_json(text: str) -> QuantConfig:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise _pointed(text, error.pos, f"This is not JSON: {error.msg}.") from None
    except RecursionError:
        raise ConfigError("This JSON is nested too deeply for a configuration.") from None
    places = _places(text)
    if not isinstance(values, dict):
        raise _pointed(text, places.values[()], "A configuration is an object { }.")
    try:
        config = QuantConfig.from_dict(values)
        config.checked_meaning()
    except ConfigError as error:
        raise _pointed(text, places.of(error), str(error)) from None
    return config


def _wrong_from(name: str) -> int:
    """How many characters of ``name`` also begin the name of some method."""
    known = (*VALID_METHODS, *ALIASES)
    lengths = range(len(name), 0, -1)
    return next((n for n in lengths if any(method.startswith(name[:n]) for method in known)), 0)


def _pointed(text: str, at: int, message: str) -> ConfigError:
    """A ConfigError with ``message`` that shows the place in the text, character ``at``."""
    before = text[:at]
    line, column = before.count("\n") + 1, at - before.rfind("\n")
    shown = text.split("\n")[line - 1].rstrip("\r")
    there = shown[column - 1 :].strip() or "the end"
    there = there if len(there) <= 30 else f"{there[:30]}..."
    return ConfigError(
        f"Line {line}, column {column}, at {there}: {message}\n{shown}\n{' ' * (column - 1)}^"
    )


@dataclass
class _Places:
    """Where each value and each key of a JSON text stands, by its path."""

    values: dict[Path, int] = field(default_factory=dict)
    keys: dict[Path, int] = field(default_factory=dict)

    def of(self, error: ConfigError) -> int:
        path, places = error.path, self.keys if error.at_key else self.values
        # An option may stand beside the object that it belongs in.
        for there in (path, (*path[:-2], *path[-1:])):
            if there in places:
                return places[there]
        while path not in self.values:
            path = path[:-1]
        return self.values[path]


def _places(text: str) -> _Places:
    """A dictionary of the pairs that json.loads read. ConfigError where a key occurs twice."""
    found = _Places()
    _walk(text, 0, (), found)
    return found


def _walk(text: str, at: int, path: Path, found: _Places) -> int:
    """Notes the value that begins at ``at`` or after spaces; returns where it ends."""
    at = _skip(text, at)
    found.values[path] = at
    if text[at] == "{":
        return _walk_object(text, at, path, found)
    if text[at] == "[":
        return _walk_list(text, at, path, found)
    return json.JSONDecoder().raw_decode(text, at)[1]


def _walk_object(text: str, at: int, path: Path, found: _Places) -> int:
    at = _skip(text, at + 1)
    while text[at] != "}":
        key_at = at
        key, at = scanstring(text, at + 1)
        here = (*path, key)
        if here in found.keys:
            raise _pointed(text, key_at, f"The key {key!r} occurs twice.")
        found.keys[here] = key_at
        at = _skip(text, _walk(text, _skip(text, at) + 1, here, found))
        at = _skip(text, at + 1) if text[at] == "," else at
    return at + 1


def _walk_list(text: str, at: int, path: Path, found: _Places) -> int:
    at, number = _skip(text, at + 1), 0
    while text[at] != "]":
        at = _skip(text, _walk(text, at, (*path, number), found))
        at, number = (_skip(text, at + 1) if text[at] == "," else at), number + 1
    return at + 1


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in _SPACE and at < len(text):
        at += 1
    return at
