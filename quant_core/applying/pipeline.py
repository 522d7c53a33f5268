"""Quantize a diffusers pipeline: each of its modules by a method of its own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..config import QuantConfig
from ..errors import ConfigError, NothingToQuantizeError
from ..layers import supported_layers
from .component import prepare, quantize_component
from .ray_quantizer import ray_cluster

DEFAULT = "default"
_CARRYING_OUT = frozenset({"rounding", "verbose", "on_layer", "ray"})
"""Arguments of ``quantize_component`` that change no plan."""
Chosen = str | QuantConfig | Mapping[str, Any] | None


@dataclass(frozen=True)
class _Part:
    """The layers of one module that one entry of the map is for."""

    component: str
    chosen: Chosen
    layers: tuple[str, ...]
    whole: bool

    def options(self) -> dict[str, Any]:
        kind = component_type(self.component)
        preset = "generic" if kind == "transformer" else None
        include = None if self.whole else self.layers
        return {"component_type": kind, "preset": preset, "include": include}


def quantize_pipeline(
    pipe: Any, methods: Mapping[str, Chosen], **options: Any
) -> dict[str, dict[str, Any]]:
    """Quantize the modules of the diffusers pipeline ``pipe`` in place; returns the stats of each.

    methods: by the name of a module ("transformer", "text_encoder_2") or of layers in it
    ("transformer.transformer_blocks.0"), the method, configuration or dictionary, as in
    ``quantize_component``; None leaves it as it is. Of a layer the longest name that it begins with
    counts, whole components of the name; "default" is for all others, which without it are left.
    Transformers and UNets keep what the generic preset keeps, VAEs take "int8".
    options: further arguments of ``quantize_component``.

    Everything is planned before anything is changed. ConfigError for a name that means no module or
    layer, and what ``quantize_component`` raises.
    """
    parts = _parts(pipe, methods)
    planning = {name: value for name, value in options.items() if name not in _CARRYING_OUT}
    prepared = [
        prepare(getattr(pipe, part.component), part.chosen, **part.options(), **planning)
        for part in parts
    ]
    stats: dict[str, dict[str, Any]] = {}
    with ExitStack() as connected:
        if options.get("ray") is not None:  # once, not for every module
            connected.enter_context(ray_cluster(options["ray"]))
        for part, ready in zip(parts, prepared, strict=True):
            module = getattr(pipe, part.component)
            given = {**options, "calibration": ready.calibration}
            _, found = quantize_component(module, part.chosen, **part.options(), **given)
            name = part.component if part.whole else f"{part.component}.{part.layers[0]}"
            stats[name] = found
    if not stats:
        raise NothingToQuantizeError(
            "Nothing of the pipeline is to be quantized. Name a module, as in "
            '{"transformer": "int8"}.'
        )
    return stats


def component_type(name: str) -> str:
    """What a pipeline's module of that name is: "encoder", "vae", else "transformer"."""
    if "vae" in name or name == "movq":
        return "vae"
    return "encoder" if "encoder" in name else "transformer"


def _parts(pipe: Any, methods: Mapping[str, Chosen]) -> list[_Part]:
    if not isinstance(getattr(pipe, "components", None), Mapping):
        raise ConfigError(
            f"pipe is a {type(pipe).__name__}, which has no components. Give a pipeline of "
            "diffusers, or one module to quantize_component."
        )
    if not isinstance(methods, Mapping):
        raise ConfigError(
            f"methods is {methods!r:.60}. Give a method for each module's name, as in "
            '{"transformer": "int8"}.'
        )
    modules = {n: m for n, m in pipe.components.items() if isinstance(m, nn.Module)}
    layers = {
        component: [n for n, _, _ in supported_layers(module, component_type(component))]
        for component, module in modules.items()
    }
    used: set[str] = {DEFAULT}
    parts = []
    for component, names in layers.items():
        meant: dict[str, list[str]] = {}
        for name in names:
            meant.setdefault(_longest(f"{component}.{name}", methods), []).append(name)
        used |= meant.keys()
        for key, mine in meant.items():
            chosen = methods.get(key)
            if chosen is not None:
                parts.append(_Part(component, chosen, tuple(mine), len(meant) == 1))
    unused = [key for key in methods if key not in used]
    if unused:
        raise ConfigError(
            f"{unused[0]!r} means no layer of the pipeline. Its modules are {', '.join(modules)}."
        )
    return parts


def _longest(name: str, methods: Mapping[str, Chosen]) -> str:
    """The longest key that ``name`` begins with, in whole components."""
    keys = [key for key in methods if name == key or name.startswith(f"{key}.")]
    return max(keys, key=len, default=DEFAULT)
