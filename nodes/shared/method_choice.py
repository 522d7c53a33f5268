"""The choice that a Quantize node's dropdowns and connected config make together, as one value."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from comfy.model_base import BaseModel
from comfy.sd import VAE
from torch import nn

from ...quant_core.config import BUILT_IN, INHERIT, ComponentConfig, DefaultsConfig, QuantConfig
from ...quant_core.errors import ConfigError, UnknownNameError, UnsupportedMethodError
from ...quant_core.hardware import Hardware, recommend
from ...quant_core.methods import FASTEST, FIT, MEASURED, resolve_method
from ..bridge.architecture.detected import architecture_name
from ..bridge.architecture.diffusers_patterns import in_comfyuis_names
from ..bridge.architecture.pipeline_names import (
    architecture_names,
    encoder_architectures,
    vae_architectures,
)
from ..capability.kitchen import installed_kernels
from .node_inputs import (
    AUTO,
    COMPUTE,
    COMPUTE_DEVICES,
    DEFAULT,
    FULL,
    NONE,
    defaults_path,
    fingerprint,
)

# By how a text encoder is computed. In full precision memory is all there is to gain: the format
# that rounds least is best on every machine. Rounded activations of encoders have large outliers,
# of which the rotation takes care.
ENCODER_METHODS = {FULL: "int8", COMPUTE[1]: "int8-convrot"}


@dataclass(frozen=True)
class MethodChoice:
    """A method with all that narrows it down, and the reasons for it.

    method: a name or alias of ``quant_core.methods``, or before it is resolved also AUTO or
    DEFAULT. granularity: one of GRANULARITIES. preset: as the dropdown has it. include, exclude:
    patterns of layers, as a text or one by one. notes: sentences for the report.
    """

    method: str
    granularity: str = "per-row"
    preset: str = AUTO
    include: str | Sequence[str] = ""
    exclude: str | Sequence[str] = ""
    notes: tuple[str, ...] = ()

    def preset_for(self, detected: str | None) -> str | None:
        """The preset's name where the architecture's own is ``detected``: "generic" for an unknown
        architecture, None for no preset."""
        if self.preset == AUTO:
            return detected or "generic"
        return None if self.preset == NONE else self.preset

    def noting(self, note: str, **changes: str) -> MethodChoice:
        """This choice with ``changes``, and the reason for them."""
        return replace(self, notes=(*self.notes, note), **changes)


def choose_for_model(
    chosen: MethodChoice, config: QuantConfig | None, model: BaseModel, hardware: Hardware
) -> MethodChoice:
    """Resolves ``chosen``, a node's inputs, to the method for a diffusion model.

    ConfigError where neither the config nor the user's file gives a method.
    """
    chosen = _configured(chosen, config, model)
    chosen = _by_default(chosen, "transformer", (architecture_name(model),))
    return _recommended(chosen, hardware)


def choose_for_control(
    chosen: MethodChoice, config: QuantConfig | None, hardware: Hardware
) -> MethodChoice:
    """As ``choose_for_model``, for a ControlNet or a model patch.

    UnsupportedMethodError for a method that needs a size or a calibration.
    """
    chosen = _by_default(_configured(chosen, config), "transformer", ())
    return _recommended(_runs_here(chosen), hardware)


def _runs_here(chosen: MethodChoice) -> MethodChoice:
    """``chosen``, whose method runs in a node without a size and a calibration."""
    name = AUTO if chosen.method == AUTO else resolve_method(chosen.method)
    if name not in MEASURED or name == FASTEST:
        return chosen
    need, where = ("size", "size_gib") if name == FIT else ("calibration", "calibration")
    raise UnsupportedMethodError(
        f"{name} needs a {need}, and this node has no input for one. Choose another method here; "
        f"Quantize Model has {where}."
    )


def _recommended(chosen: MethodChoice, hardware: Hardware) -> MethodChoice:
    if chosen.method != AUTO:
        return chosen
    found = recommend(hardware)
    note = f"auto chose {found.method}: {found.why}"
    if hardware.device == "cuda":
        slow = hardware.speed_problem("fp8") if hardware.fp8_matmul else None
        note = " ".join(filter(None, (note, installed_kernels(hardware), slow)))
    return chosen.noting(note, method=found.method)


def choose_for_encoder(
    chosen: MethodChoice,
    config: QuantConfig | None,
    cond_stage_model: nn.Module,
    compute: str = FULL,
) -> MethodChoice:
    """As ``choose_for_model``, for the text encoders of a CLIP that is computed as ``compute``, one
    of COMPUTE, says. UnknownNameError."""
    if compute not in COMPUTE:
        raise UnknownNameError("compute", compute, COMPUTE)
    chosen = _configured(chosen, config)
    chosen = _by_default(chosen, "encoder", encoder_architectures(cond_stage_model))
    if chosen.method != AUTO:
        return chosen
    method = ENCODER_METHODS[compute]
    note = f"auto chose {method}: the least error at half the memory."
    return chosen.noting(note, method=method)


def choose_for_vae(chosen: MethodChoice, config: QuantConfig | None, vae: VAE) -> MethodChoice:
    """As ``choose_for_model``, for a VAE."""
    return _by_default(_configured(chosen, config), "vae", vae_architectures(vae))


def resolve_device(choice: str, load_device: torch.device) -> torch.device:
    """The device named by compute_device. ValueError for "gpu" where ComfyUI has only a CPU."""
    if choice not in COMPUTE_DEVICES:
        raise UnknownNameError("compute device", choice, COMPUTE_DEVICES)
    if choice == "gpu" and load_device.type == "cpu":
        raise ValueError("compute_device is gpu, but ComfyUI runs on the CPU. Choose auto or cpu.")
    return torch.device("cpu") if choice == "cpu" else load_device


def _configured(
    chosen: MethodChoice, config: QuantConfig | None, model: BaseModel | None = None
) -> MethodChoice:
    """``chosen``, overridden by what ``config`` says. model: a diffusion model, whose layers the
    config may call by diffusers' names."""
    if config is None:
        return chosen
    meaning = config.checked_meaning()
    note = f"config: {meaning.method}, as a configuration of {config.quant_method} says."
    exclude, renamed = meaning.exclude, ()
    if model is not None:
        exclude, renamed = in_comfyuis_names(exclude, model)
    return replace(
        chosen,
        method=meaning.method,
        granularity=meaning.granularity or chosen.granularity,
        include=meaning.include or chosen.include,
        exclude=exclude or chosen.exclude,
        notes=(*chosen.notes, note, *meaning.notes, *renamed),
    )


def _by_default(
    chosen: MethodChoice, component: str, architectures: Collection[str]
) -> MethodChoice:
    """``chosen``, with what the user's file says where its method is DEFAULT.

    component: "encoder", "transformer" or "vae". architectures: those it serves. Where the file
    does not name a granularity, the node's counts; without a file, the built-in method.
    """
    if chosen.method != DEFAULT:
        return chosen
    said = load_defaults().component(component, architectures)
    found = said.over(ComponentConfig(BUILT_IN[component].method, chosen.granularity))
    file = defaults_path()
    where = file if said.method != INHERIT else f"built in: {file} does not say"
    note = f"default: {component} = {found.method}, {found.granularity} ({where})."
    return chosen.noting(note, method=found.method, granularity=found.granularity)


def load_defaults() -> DefaultsConfig:
    """The user's file of defaults; without a file, a configuration that says nothing.

    ConfigError names file, line and valid values.
    """
    file = defaults_path()
    return _load(file, fingerprint(DEFAULT))


@lru_cache(maxsize=1)
def _load(file: Path, version: int) -> DefaultsConfig:
    if not version:
        return DefaultsConfig()
    try:
        return DefaultsConfig.from_toml(file.read_text("utf-8-sig"), architecture_names())
    except ConfigError as error:
        raise ConfigError(f"{file}, {error}", error.path) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8 text. Save it as UTF-8.") from None
