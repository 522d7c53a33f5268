"""The optional input "config" that every Quantize node has: what it says counts instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from comfy.model_base import BaseModel
from comfy_api.latest import io

from ...quant_core.config import QuantConfig
from ..bridge.architecture.diffusers_patterns import in_comfyuis_names

QUANT_CONFIG = io.Custom("GQ_QUANT_CONFIG")


@dataclass(frozen=True)
class Settings:
    """What a node goes by. include, exclude: patterns, as a text or one by one."""

    method: str
    granularity: str
    include: str | Sequence[str] = ""
    exclude: str | Sequence[str] = ""
    notes: tuple[str, ...] = ()


def config_input(overridden: str) -> io.Input:
    """overridden: the node's own inputs that it counts instead of, in words."""
    return QUANT_CONFIG.Input(
        "config",
        optional=True,
        tooltip="From Quantization Config. What it says counts instead of "
        f"{overridden} here; what it does not say stays.",
    )


def configured(
    config: QuantConfig | None, settings: Settings, model: BaseModel | None = None
) -> Settings:
    """``settings`` as ``config`` has them, with notes of what it changed and what had no effect.

    model: a diffusion model, whose layers the configuration may call as diffusers does. ConfigError
    where the configuration comes to no method.
    """
    if config is None:
        return settings
    meaning = config.checked_meaning()
    note = f"config: {meaning.method}, as a configuration of {config.quant_method} says."
    exclude, renamed = meaning.exclude, ()
    if model is not None:
        exclude, renamed = in_comfyuis_names(exclude, model)
    return Settings(
        meaning.method,
        meaning.granularity or settings.granularity,
        meaning.include or settings.include,
        exclude or settings.exclude,
        (note, *meaning.notes, *renamed),
    )
