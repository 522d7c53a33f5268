"""Quantized copies of what steers a diffusion model: ControlNets, Control-LoRAs, T2I-Adapters.

Tested by tests/nodes/test_quantize_controlnet.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import comfy.model_management
import torch
from comfy.controlnet import ControlBase, ControlLora, ControlNet, T2IAdapter
from comfy.model_patcher import ModelPatcher
from torch import nn

from ....quant_core.errors import ModuleError
from ....quant_core.hardware import Hardware
from ....quant_core.planning.calibrated_layers import with_calibration
from ....quant_core.planning.decisions import Plan
from ....quant_core.planning.plan import plan_component
from ....quant_core.presets.control import CONTROL
from ....quant_core.report import Report
from .quantize_patcher import quantize_patcher
from .stored_weights import StoredWeights


class StoredControlLora(ControlLora):
    """A Control-LoRA whose own weights are stored quantized.

    ComfyUI builds its model from them and the diffusion model's at the start of every run, and
    drops it at the end: while it runs, it is as large as an unquantized one.
    """

    def copy(self) -> StoredControlLora:
        """A copy that shares the weights."""
        copied = StoredControlLora(self.control_weights)
        self.copy_to(copied)
        return copied

    def inference_memory_requirements(self, dtype: torch.dtype) -> int:
        """Bytes that a run needs, counted from shapes alone: no weight is dequantized for it."""
        own = self.control_weights.parameters * comfy.model_management.dtype_size(dtype)
        return own + ControlBase.inference_memory_requirements(self, dtype)


@dataclass(frozen=True)
class Target:
    """What a plan is made for: the module whose layers it names, and where that computes."""

    module: nn.Module
    device: torch.device

    def plan(
        self,
        method: str,
        granularity: str,
        exclude: str | Sequence[str],
        hardware: Hardware,
    ) -> Plan:
        """The plan that quantizes the module, convolutions included, but for its ends."""
        plan = plan_component(
            self.module,
            method,
            granularity=granularity,
            preset=CONTROL,
            exclude=exclude,
            hardware=hardware,
            convolutions=True,
        )
        return with_calibration(plan, None)


def target_of(source: ControlBase | ModelPatcher) -> Target:
    """The target in a ControlNet, or in a model patch, which is a ModelPatcher.

    ModuleError for a kind of ControlNet that ComfyUI does not have itself.
    """
    if isinstance(source, ModelPatcher):
        return Target(source.model, source.load_device)
    if isinstance(source, ControlLora):
        device = comfy.model_management.get_torch_device()
        return Target(StoredWeights.as_module(source.control_weights), device)
    if isinstance(source, ControlNet):
        return Target(source.control_model, source.control_model_wrapped.load_device)
    if isinstance(source, T2IAdapter):
        return Target(source.t2i_model, source.device)
    raise ModuleError(
        f"control_net is a {type(source).__name__}, which this node does not know. Connect it "
        "unquantized, or load it with ComfyUI's Load ControlNet Model."
    )


def quantize_patch(
    patcher: ModelPatcher, plan: Plan, device: torch.device
) -> tuple[ModelPatcher, Report]:
    """A copy of ``patcher`` whose quantized layers compute in the dtype of its other parameters."""
    dtypes = (p.dtype for p in patcher.model.parameters() if p.dtype.is_floating_point)
    return _quantize(patcher, plan, device, next(dtypes, torch.float32))


def quantize_control(
    control: ControlBase, plan: Plan, device: torch.device
) -> tuple[ControlBase, Report]:
    """A copy of ``control`` with the weights that ``plan`` says quantized, and the report.

    ``control`` and the ControlNets chained before it stay as they are; the copy has the same chain.
    """
    if isinstance(control, ControlLora):
        stored, report = StoredWeights.quantize(control.control_weights, plan, device)
        quantized = StoredControlLora(stored)
        control.copy_to(quantized)
    elif isinstance(control, T2IAdapter):
        # ComfyUI moves a T2I-Adapter by itself and gives it no patcher.
        cpu = torch.device("cpu")
        patcher = ModelPatcher(control.t2i_model, load_device=control.device, offload_device=cpu)
        patcher, report = quantize_patch(patcher, plan, device)
        quantized = control.copy()
        quantized.t2i_model = patcher.model
    else:
        dtype = control.manual_cast_dtype or control.control_model.dtype
        patcher, report = _quantize(control.control_model_wrapped, plan, device, dtype)
        quantized = control.copy()
        quantized.control_model = patcher.model
        quantized.control_model_wrapped = patcher
    for other in control.multigpu_clones:
        quantized.deepclone_multigpu(other, autoregister=True)
    return quantized.set_previous_controlnet(control.previous_controlnet), report


def _quantize(
    patcher: ModelPatcher, plan: Plan, device: torch.device, dtype: torch.dtype
) -> tuple[ModelPatcher, Report]:
    quantized, reports = quantize_patcher(patcher, {"": plan}, compute_dtype=dtype, device=device)
    return quantized, reports[""]
