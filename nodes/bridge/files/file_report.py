"""What the save and load nodes report: the model as Quantize Model reports it, and the file.

Tested by tests/nodes/bridge/loading/test_load_model.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ....quant_core.applying.component import kernel_of
from ....quant_core.conversion.metadata import METHOD, PRESET
from ....quant_core.layers import layer_kind
from ....quant_core.methods import Choice
from ....quant_core.planning.decisions import (
    ALREADY,
    ALREADY_QUANTIZED,
    QUANTIZE,
    LayerPlan,
    Plan,
)
from ....quant_core.planning.layer_plan import plan_layers
from ....quant_core.report import Report
from ..tensor.layout import is_ours
from ..tensor.native import native_kernel
from .provenance import Provenance


@dataclass(frozen=True)
class FileReport:
    """The report about a saved or loaded file. headline, facts: sentences about the file. warnings:
    what the user may not expect. report: about the model in it. loader: the node that reads it.
    written: False where a file with these bytes was there."""

    headline: str
    path: Path
    report: Report
    facts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    loader: str = "Load Quantized Model"
    written: bool = True

    def to_dict(self) -> dict:
        """Plain values only: the report's, and the file's beside them."""
        return {
            **self.report.to_dict(),
            "headline": self.headline,
            "path": str(self.path),
            "facts": list(self.facts),
            "warnings": list(self.warnings),
        }

    def to_markdown(self) -> str:
        """The file's sentences, then the model's report."""
        lines = [self.headline, ""]
        lines += [f"- warning: {text}" for text in self.warnings]
        lines += [f"- {text}" for text in self.facts]
        return "\n".join([*lines, "", self.report.to_markdown()])


def model_report(patcher: ModelPatcher, provenance: Provenance, seconds: float) -> Report:
    """The report of a model that is quantized already, read off its layers."""
    root = patcher.model.diffusion_model
    kept = provenance.kept()
    found = plan_layers(
        _layers(root),
        lambda shape: Choice(None, "not quantized"),
        kept.get,
    )
    layers = tuple(_as_quantized(layer, root.get_submodule(layer.name).weight) for layer in found)
    quantized = any(layer.action in (ALREADY, QUANTIZE) for layer in layers)
    method = provenance.metadata.get(METHOD, ALREADY_QUANTIZED if quantized else "none")
    plan = Plan(
        requested=method,
        method=method,
        runs_as=method,
        component_type="transformer",
        granularity=provenance.metadata.get("graphquant.granularity", "-"),
        preset=provenance.metadata.get(PRESET),
        layers=layers,
    )
    size = patcher.model_size()
    saved = sum(layer.bytes_before - layer.bytes_after for layer in plan.quantized)
    kernel = kernel_of(plan, patcher.load_device, native_kernel)
    return Report(plan, kernel, seconds, size + saved, size)


def _layers(root: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """Linear layers, and whatever else is quantized."""
    for name, module in root.named_modules():
        kind = layer_kind(module)
        if kind == "Linear" or is_ours(getattr(module, "weight", None)):
            yield name, kind or type(module).__name__, module


def _as_quantized(layer: LayerPlan, weight: torch.Tensor) -> LayerPlan:
    if layer.action != ALREADY or not is_ours(weight):
        return layer
    return replace(
        layer,
        action=QUANTIZE,
        reason="",
        dtype=str(weight.dtype).removeprefix("torch."),
        bytes_before=weight.numel() * weight.dtype.itemsize,
        format=weight._params.format,
    )
