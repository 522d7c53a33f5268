"""Defaults from ``graphquant.toml`` in ComfyUI's user directory, for nodes that are told so."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

import folder_paths

from ...quant_core import ConfigError, DefaultsConfig
from ...quant_core.config import BUILT_IN, INHERIT, ComponentConfig
from ..bridge.architecture.pipeline_names import architecture_names

FILE = "graphquant.toml"
DEFAULT = f"default ({FILE})"
DEFAULT_TOOLTIP = f"{DEFAULT}: what {FILE} in ComfyUI's user folder says."


def choose_default(
    method: str, granularity: str, component: str, architectures: Collection[str]
) -> tuple[str, str, list[str]]:
    """Method and granularity of a node, and a note where the file was asked.

    Any method but DEFAULT is meant itself. component: "encoder", "transformer" or "vae".
    architectures: those it serves. Where the file says nothing of the granularity, the node's
    counts; without a file, the built-in method. ConfigError names file, line and valid values.
    """
    if method != DEFAULT:
        return method, granularity, []
    said = load_defaults().component(component, architectures)
    chosen = said.over(ComponentConfig(BUILT_IN[component].method, granularity))
    where = path() if said.method != INHERIT else f"built in: {path()} does not say"
    note = f"default: {component} = {chosen.method}, {chosen.granularity} ({where})."
    return chosen.method, chosen.granularity, [note]


def fingerprint(method: str | None) -> int:
    """Changes when the file does, for a node whose ``method`` is DEFAULT; else always 0."""
    return _version(path()) if method == DEFAULT else 0


def load_defaults() -> DefaultsConfig:
    """The file's contents; without a file, a configuration that says nothing."""
    file = path()
    return _load(file, _version(file))


def path() -> Path:
    return Path(folder_paths.get_user_directory()) / FILE


def _version(file: Path) -> int:
    return file.stat().st_mtime_ns if file.is_file() else 0


@lru_cache(maxsize=1)
def _load(file: Path, version: int) -> DefaultsConfig:
    if not version:
        return DefaultsConfig()
    try:
        return DefaultsConfig.from_toml(file.read_text("utf-8-sig"), architecture_names())
    except ConfigError as error:
        raise ConfigError(f"{file}, {error}", error.path) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is no UTF-8 text. Save it as UTF-8.") from None
