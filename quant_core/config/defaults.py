"""Defaults for quantization as a user writes them down: global ones, and by architecture.

A setting is one of three things: a method, "none" (this component is not quantized, which is a
value like any other), or "inherit" (nothing is said here; the same as leaving it out).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import ConfigError, UnknownNameError, UnsupportedMethodError
from ..layers import COMPONENT_TYPES
from ..methods import ALIASES, GRANULARITIES, VALID_METHODS, named_method
from ..planning import vae_rules as vae
from ..presets import PRESETS

INHERIT, AUTO = "inherit", "auto"
GLOBAL = "quantization"

_METHODS = (INHERIT, AUTO, *VALID_METHODS)
_GRANULARITIES = (INHERIT, *GRANULARITIES)

# Every key of a section, and its values; a method may be any other name of one, too.
SETTINGS: dict[str, tuple[str, ...]] = {
    "encoder": _METHODS,
    "transformer": _METHODS,
    "vae": (INHERIT, *vae.METHODS),
    "granularity": _GRANULARITIES,
    "encoder_granularity": _GRANULARITIES,
    "transformer_granularity": _GRANULARITIES,
    "vae_granularity": _GRANULARITIES,
}


# Settings that stand beside these in the files that quantization_encoder comes from.
_NOT_HERE = {
    "compile": "Models are compiled by ComfyUI's TorchCompileModel.",
    "compile_mode": "Tell it to a Quantize node, whose report has warnings for it.",
    "cpu_offload": "ComfyUI offloads by itself.",
    "transformer_file": "Choose the file in a loader.",
}


@dataclass(frozen=True)
class ComponentConfig:
    """The settings of one component (encoder, transformer or VAE). A setting that is left out is
    "inherit"."""

    method: str = INHERIT
    granularity: str = INHERIT

    def over(self, base: ComponentConfig) -> ComponentConfig:
        """These settings, with ``base`` filling in those that are "inherit"."""
        return ComponentConfig(
            base.method if self.method == INHERIT else self.method,
            base.granularity if self.granularity == INHERIT else self.granularity,
        )


BUILT_IN: dict[str, ComponentConfig] = {
    "encoder": ComponentConfig(AUTO, "per-row"),
    "transformer": ComponentConfig(AUTO, "per-row"),
    "vae": ComponentConfig("int8", "per-row"),
}


@dataclass(frozen=True)
class SectionConfig:
    """One section of a defaults file: a method for each component, and granularities.

    A component's own granularity counts more than the section's. ConfigError for an invalid value.
    """

    encoder: str = INHERIT
    transformer: str = INHERIT
    vae: str = INHERIT
    granularity: str = INHERIT
    encoder_granularity: str = INHERIT
    transformer_granularity: str = INHERIT
    vae_granularity: str = INHERIT

    def __post_init__(self):
        for key, value in asdict(self).items():
            _check_setting((key,), value)

    def component(self, name: str) -> ComponentConfig:
        """The settings of "encoder", "transformer" or "vae" in this section."""
        own = ComponentConfig(getattr(self, name), getattr(self, f"{name}_granularity"))
        return own.over(ComponentConfig(granularity=self.granularity))

    def to_dict(self) -> dict[str, str]:
        """The settings that are not "inherit", as plain values."""
        return {key: value for key, value in asdict(self).items() if value != INHERIT}


@dataclass(frozen=True)
class DefaultsConfig:
    """A user's defaults: one global section, and sections for architectures (in snake_case) that
    override it."""

    quantization: SectionConfig = field(default_factory=SectionConfig)
    architectures: Mapping[str, SectionConfig] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        for name in self.architectures:
            if name == GLOBAL or not re.fullmatch("[a-z0-9_]+", name):
                raise ConfigError(f"No architecture is called {name!r}. Use snake_case.", (name,))

    def component(self, name: str, architectures: Collection[str] = ()) -> ComponentConfig:
        """The settings of a component that serves ``architectures``; a VAE may serve several.

        ConfigError where the sections of those architectures contradict each other.
        """
        sections = {a: self.architectures[a] for a in architectures if a in self.architectures}
        configs = {a: section.component(name) for a, section in sections.items()}
        said = {a: config for a, config in configs.items() if config != ComponentConfig()}
        if len(set(said.values())) > 1:
            first, second = sorted(said)[:2]
            raise ConfigError(
                f"[{first}] and [{second}] contradict each other, and this {name} serves both. "
                f"Make their {name} settings equal, or choose a method in the node.",
                (first,),
            )
        specific = next(iter(said.values()), ComponentConfig())
        return specific.over(self.quantization.component(name))

    def resolve(
        self, architecture: str | None = None, known: Collection[str] = PRESETS
    ) -> dict[str, ComponentConfig]:
        """The settings of each component: from the architecture's section, else the global one,
        else the built-in defaults.

        known: the names of architectures, beside those that have a section. UnknownNameError for
        any other.
        """
        names = dict.fromkeys((*self.architectures, *known))
        if architecture is not None and architecture not in names:
            raise UnknownNameError("architecture", architecture, names)
        architectures = () if architecture is None else (architecture,)
        return {
            name: self.component(name, architectures).over(BUILT_IN[name])
            for name in COMPONENT_TYPES
        }

    def to_dict(self) -> dict[str, dict[str, str]]:
        """The sections as plain values, without settings that are "inherit"."""
        sections = {name: section.to_dict() for name, section in self.architectures.items()}
        return {GLOBAL: self.quantization.to_dict(), **sections}

    def to_json(self) -> str:
        """``to_dict`` as JSON text, which ``from_json`` reads."""
        return json.dumps(self.to_dict(), indent=2)

    def to_toml(self) -> str:
        """``to_dict`` as TOML text. Names are bare keys and values plain words, so nothing is
        escaped."""
        return "\n".join(
            f"[{name}]\n" + "".join(f'{key} = "{value}"\n' for key, value in section.items())
            for name, section in self.to_dict().items()
        )

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], architectures: Collection[str] = PRESETS
    ) -> DefaultsConfig:
        """The defaults that ``to_dict`` wrote. architectures: the valid section names.

        ConfigError names the wrong key or value, and the valid ones.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"Defaults are an object of sections, not a {type(values).__name__}. "
                f'Write {{"{GLOBAL}": {{"transformer": "int8"}}}}.'
            )
        for name, settings in values.items():
            _check_section(name, settings, architectures)
        sections = {
            name: SectionConfig(**{_own_key(key): value for key, value in settings.items()})
            for name, settings in values.items()
        }
        return cls(sections.pop(GLOBAL, SectionConfig()), sections)

    @classmethod
    def from_json(cls, text: str, architectures: Collection[str] = PRESETS) -> DefaultsConfig:
        """The defaults in a JSON text. ConfigError as in ``from_dict``, or where ``text`` is not a
        JSON object of sections."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"This is not JSON: {error}.") from None
        return cls.from_dict(values, architectures)

    @classmethod
    def from_toml(cls, text: str, architectures: Collection[str] = PRESETS) -> DefaultsConfig:
        """The defaults in a TOML text. ConfigError also names the line."""
        values = _parse_toml(text)
        try:
            return cls.from_dict(values, architectures)
        except ConfigError as error:
            line = _line_of(text, error.path)
            raise ConfigError(f"line {line}: {error}", error.path) from None


def _check_section(name: str, settings: Any, architectures: Collection[str]) -> None:
    valid = (GLOBAL, *architectures)
    if name in SETTINGS:
        raise ConfigError(f"{name} stands in no section. Write [{GLOBAL}] above it.", (name,))
    if name not in valid:
        raise ConfigError(str(UnknownNameError("section", name, valid)), (name,))
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{name} is a section, not a value. Write [{name}].", (name,))
    for key, value in settings.items():
        _check_key(name, key, settings)
        _check_setting((name, key), value)


def _check_key(section: str, key: str, settings: Mapping[str, Any]) -> None:
    path = (section, key)
    if key in _NOT_HERE:
        raise ConfigError(f"{key} is not read here. {_NOT_HERE[key]} Remove the line.", path)
    own = _own_key(key)
    if own not in SETTINGS:
        raise ConfigError(str(UnknownNameError(f"key in [{section}]", key, SETTINGS)), path)
    if own != key and own in settings:
        raise ConfigError(f"{key} and {own} are one setting. Leave {key} out.", path)


def _own_key(key: str) -> str:
    """``quantization_encoder`` is ``encoder``."""
    own = key.removeprefix("quantization_") if isinstance(key, str) else key
    return own if own in COMPONENT_TYPES else key


def _check_setting(path: tuple[str, ...], value: Any) -> None:
    key = _own_key(path[-1])
    if value in SETTINGS[key] or (SETTINGS[key] is _METHODS and _names_a_method(path, value)):
        return
    aliases = ALIASES if SETTINGS[key] is _METHODS else ()
    error = UnknownNameError(f"value of {key}", value, SETTINGS[key], aliases)
    raise ConfigError(str(error), path)


def _names_a_method(path: tuple[str, ...], value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(named_method(value))
    except UnknownNameError:
        return False
    except UnsupportedMethodError as error:
        raise ConfigError(str(error), path) from None


def _parse_toml(text: str) -> dict[str, Any]:
    if sys.version_info < (3, 11):
        raise ConfigError(
            f"Reading TOML needs Python 3.11, this is {sys.version.split()[0]}. "
            "Choose a method in the node instead, or run a newer Python."
        )
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f'{error}. Every setting is written key = "value".') from None


def _line_of(text: str, path: tuple[str, ...]) -> int:
    """The first line with which ``path`` is in the file. Parsing ever longer beginnings finds it
    however TOML's many spellings wrote it."""
    import tomllib

    lines = text.replace("\r\n", "\n").split("\n")
    for number in range(1, len(lines)):
        try:
            values: Any = tomllib.loads("\n".join(lines[:number]))
        except tomllib.TOMLDecodeError:  # this line ends inside a value
            continue
        for key in path:
            values = values.get(key) if isinstance(values, Mapping) else None
        if values is not None:
            return number
    return len(lines)
