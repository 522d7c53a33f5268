"""A state dict whose large weights are stored quantized and read as floats.

A Control-LoRA has no module of its own: ComfyUI keeps its state dict and reads every weight from
it when a run starts.

Tested by tests/nodes/test_quantize_controlnet.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import comfy.model_management
import torch
from torch import nn

from ....quant_core.applying.component import kernel_of
from ....quant_core.applying.quantize_plan import quantize_plan
from ....quant_core.formats import QuantizedWeight
from ....quant_core.planning.decisions import Plan
from ....quant_core.report import Report
from ..tensor.layout import quantized_tensor


class _Matrix(nn.Module):
    """A weight [N, K] as a Linear has it, for a plan to find."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(weight, requires_grad=False)


class _Rest(nn.Module):
    """A tensor that no plan quantizes."""

    def __init__(self, tensor: torch.Tensor):
        super().__init__()
        self.register_buffer("tensor", tensor)


class StoredWeights(Mapping):
    """Tensors by name: plain ones as they are, quantized ones dequantized whenever they are read.

    parameters: the elements of all, as ComfyUI counts a model's.
    """

    def __init__(
        self, plain: Mapping[str, torch.Tensor], stored: Mapping[str, QuantizedWeight]
    ) -> None:
        self._plain, self._stored = dict(plain), dict(stored)
        self.parameters = sum(tensor.nelement() for tensor in self._plain.values())

    @staticmethod
    def as_module(state: Mapping[str, torch.Tensor]) -> nn.Module:
        """A module with a layer for every matrix of ``state``, named as there; a kernel of a
        convolution [N, C, H, W] counts as the matrix [N, C H W]. What is stored quantized is so in
        the module too."""
        module = nn.Module()
        plain, stored = _parts(state)
        for name, tensor in plain.items():
            if name in stored:
                made = _Matrix(quantized_tensor(stored[name], tensor.dtype))
            elif tensor.is_floating_point() and tensor.dim() >= 2:
                made = _Matrix(tensor.detach().flatten(1))
            else:
                made = _Rest(tensor.detach())
            module._modules[name] = made  # add_module refuses dots
        return module

    @classmethod
    def quantize(
        cls, state: Mapping[str, torch.Tensor], plan: Plan, device: torch.device
    ) -> tuple[StoredWeights, Report]:
        """``state`` with the weights that ``plan``, made for ``as_module``, says quantized beside
        those that are already."""
        started = time.perf_counter()

        def read(layer: str) -> torch.Tensor:
            return state[layer].detach().flatten(1)

        def on_layer(_) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()

        stored = quantize_plan(plan, read, device=device, on_layer=on_layer)
        plain, kept = _parts(state)
        made = cls(plain, {**kept, **stored})
        report = Report(
            plan,
            kernel_of(plan, device),
            time.perf_counter() - started,
            plan.bytes_before,
            plan.bytes_after,
        )
        for name in stored:
            made._plain[name] = torch.empty_like(plain[name], device="meta")
        return made, report

    def __getitem__(self, name: str) -> torch.Tensor:
        plain, stored = self._plain[name], self._stored.get(name)
        return plain if stored is None else stored.dequantize(plain.dtype).reshape(plain.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._plain)

    def __len__(self) -> int:
        return len(self._plain)


def _parts(
    state: Mapping[str, torch.Tensor],
) -> tuple[Mapping[str, torch.Tensor], Mapping[str, QuantizedWeight]]:
    """The tensors of ``state`` as they lie, on the meta device where they are stored quantized, and
    those that are."""
    return (state._plain, state._stored) if isinstance(state, StoredWeights) else (state, {})
