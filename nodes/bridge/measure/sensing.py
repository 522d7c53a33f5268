"""What each layer does to the final latent, measured with ComfyUI's own sampler.

A forward hook adds to a layer's output what its rounded weight would change, x (Q(W) - W)^T. So the
MODEL is loaded once, whatever its size, and nothing of it is changed.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.utils
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy.quant_ops import QuantizedTensor
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import nn

from ....quant_core.calibration import fingerprint_of
from ....quant_core.fit import Sensitivity
from ....quant_core.formats import Format
from ....quant_core.layers import supported_layers
from ....quant_core.measure.relative_error import error_of
from ....quant_core.methods import named_method
from ....quant_core.planning.filters import LayerFilter
from ....quant_core.planning.plan import resolve_preset
from ..architecture.detected import architecture_name, preset_name
from ..files.sensitivity_folder import PartialRun, file_for
from .sampling import Sampling, picture_of

PROBE = "int4-symmetric"
"""What layers are rounded by, one after another."""


class Unit:
    """Layers that are rounded together: one layer, or a whole block. formats: by layer name."""

    def __init__(self, name: str, formats: Mapping[str, Format]):
        self.name, self.formats = name, formats
        self.lost = dict.fromkeys(formats, 0.0)
        self.given = dict.fromkeys(formats, 0.0)

    def effects(self, change: float) -> dict[str, float]:
        """The ``change`` of the final latent shared out among the layers, in squares, by the
        relative error of their outputs."""
        local = {
            name: self.lost[name] / self.given[name] if self.given[name] else 0.0
            for name in self.formats
        }
        total = sum(local.values())
        if not total:
            return dict.fromkeys(self.formats, 0.0)
        return {name: change * math.sqrt(share / total) for name, share in local.items()}


def units(formats: Mapping[str, Format], by_block: bool) -> list[Unit]:
    """The layers of ``formats`` as they are measured: alone, or those of a block together, which is
    what stands under one number: ``double_blocks.0``."""
    groups: dict[str, dict[str, Format]] = {}
    for name, fmt in formats.items():
        parts = name.split(".")
        number = next((at for at, part in enumerate(parts) if part.isdigit()), None)
        whole = by_block and number is not None and number < len(parts) - 1
        group = ".".join(parts[: number + 1]) if whole else name
        groups.setdefault(group, {})[name] = fmt
    return [Unit(name, members) for name, members in groups.items()]


def measure_effects(
    model: ModelPatcher,
    sampling: Sampling,
    seed: int,
    todo: Sequence[Unit],
    on_unit: Callable[[Unit, dict[str, float]], None],
) -> None:
    """on_unit(unit, effects) after each of ``todo``: the relative L2 of the final latent that each
    of its layers makes.

    The hooks are gone when this returns or raises. A compiled model runs uncompiled: what is
    compiled would keep the hooks. One run of the sampler for the reference, one for each unit.
    """
    plain = model.clone()
    plain.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY)
    bar = comfy.utils.ProgressBar(sampling.steps * (1 + len(todo)))

    def run() -> torch.Tensor:
        return picture_of(sampling.run(plain, seed, bar))

    reference = run()
    for unit in todo:
        with ExitStack() as hooks:
            for name, fmt in unit.formats.items():
                layer = plain.model.diffusion_model.get_submodule(name)
                hook = _rounded(unit, name, fmt)
                hooks.callback(layer.register_forward_hook(hook).remove)
            changed = error_of(run(), reference).relative_l2
        on_unit(unit, unit.effects(changed))


def _rounded(unit: Unit, name: str, fmt: Format) -> Callable:
    """A hook that makes a layer's output what it would be with its weight in ``fmt``."""
    error: torch.Tensor | None = None

    def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        nonlocal error
        comfy.model_management.throw_exception_if_processing_interrupted()
        x = inputs[0]
        if error is None:
            error = _weight_error(module.weight, fmt, x)
        lost = F.linear(x, error)
        unit.lost[name] += lost.float().square().sum().item()
        unit.given[name] += output.float().square().sum().item()
        return output + lost.to(output.dtype)

    return hook


def _weight_error(weight: torch.Tensor, fmt: Format, x: torch.Tensor) -> torch.Tensor:
    """The error of rounding ``weight`` as it is now; a LoRA in it makes no difference."""
    weight = weight.detach()
    weight = weight.dequantize() if isinstance(weight, QuantizedTensor) else weight
    weight = weight.to(device=x.device, dtype=torch.float32)
    return fmt.quantize(weight).dequantize(torch.float32).sub_(weight).to(x.dtype)


@dataclass(frozen=True)
class Measured:
    """What ``measure_sensitivity`` gives. path: the file that holds it. resumed: how many units an
    earlier run had measured. seconds: for this run."""

    sensitivity: Sensitivity
    path: Path
    units: int
    resumed: int
    seconds: float


def layers_to_measure(model: ModelPatcher) -> dict[str, Format]:
    """The Linear layers that the architecture's preset lets be quantized, and the probe's format
    for each. The MODEL may be quantized already."""
    network = model.model.diffusion_model
    layers = [each for each in supported_layers(network, "transformer") if each[1] == "Linear"]
    preset = resolve_preset(preset_name(model.model) or "generic", [name for name, *_ in layers])
    keeps = LayerFilter("transformer", preset).reason_to_keep
    probe = named_method(PROBE).method
    chosen = {
        name: probe.choose(tuple(module.weight.shape), "per-row").format
        for name, _, module in layers
        if keeps(name) is None
    }
    return {name: fmt for name, fmt in chosen.items() if fmt is not None}


def measure_sensitivity(
    model: ModelPatcher,
    sampling: Sampling,
    seed: int,
    by_block: bool,
    on_progress: Callable[[int, int, float], None],
) -> Measured:
    """The sensitivity of ``model``'s layers, saved where Quantize Model finds it.

    on_progress(units done, units in all, seconds left) after each. What is measured is kept, so
    that a run that was cancelled goes on; the result's file is written when all is there.
    """
    network, formats = model.model.diffusion_model, layers_to_measure(model)
    if not formats:
        raise ValueError("This MODEL has no Linear layers to measure. Connect a diffusion model.")
    of_model, architecture = fingerprint_of(network), architecture_name(model.model)
    target = file_for(architecture, of_model)
    every = units(formats, by_block)
    settings = _settings(sampling, seed)
    key = _key(settings, sampling, of_model.values, [unit.name for unit in every])
    partial = PartialRun(target, key)
    done = partial.load()
    todo = [unit for unit in every if set(done.get(unit.name, ())) != set(unit.formats)]
    resumed, started = len(every) - len(todo), time.perf_counter()

    def on_unit(unit: Unit, effects: dict[str, float]) -> None:
        done[unit.name] = effects
        partial.save(done)
        fresh = len(done) - resumed
        each = (time.perf_counter() - started) / (fresh + 1)
        on_progress(len(done), len(every), each * (len(every) - len(done)))

    if todo:
        measure_effects(model, sampling, seed, todo, on_unit)
    effects = {name: effect for unit in every for name, effect in done[unit.name].items()}
    sensitivity = Sensitivity(architecture, of_model, PROBE, effects, settings, by_block)
    sensitivity.save(target)
    partial.end()
    return Measured(sensitivity, target, len(every), resumed, time.perf_counter() - started)


def _settings(sampling: Sampling, seed: int) -> dict:
    return {
        "seed": seed,
        "steps": sampling.steps,
        "cfg": sampling.cfg,
        "sampler_name": sampling.sampler_name,
        "scheduler": sampling.scheduler,
        "latent": list(sampling.latent["samples"].shape),
    }


def _key(settings: dict, sampling: Sampling, values: tuple, names: list[str]) -> str:
    """What must be the same for two runs to measure the same."""
    digest = hashlib.sha256(repr((settings, values, names)).encode())
    for cond, extras in (*sampling.positive, *(sampling.negative or ())):
        for tensor in (cond, *extras.values()):
            if isinstance(tensor, torch.Tensor):
                digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
