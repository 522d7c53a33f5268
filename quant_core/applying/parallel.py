"""Quantized modules on several devices: FSDP2's ``fully_shard`` and ``parallelize_module``.

A quantized weight is divided by output rows alone. Each row then sums over all of K as it does in
one process, which sums over a divided K would not.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import ParallelStyle

from ..carriers.torchao_tensors import to_torchao
from ..errors import ClusterError


def quantized_parameters(model: nn.Module) -> set[nn.Parameter]:
    """The quantized weights of ``model``, for ``fully_shard(..., ignored_params=)``.

    Every process keeps them whole, and everything else is sharded: codes of several widths with
    their scales are not one flat tensor, which is what FSDP2 divides. A quantized model is a
    quarter to a half of the original, which is what sharding over two to four devices gives.
    """
    return {p for p in model.parameters() if hasattr(p, "quantized_weight")}


class QuantizedColwise(ParallelStyle):
    """For ``parallelize_module``: each device has some output rows of a quantized Linear.

    The input is whole on every device, the output [..., N / devices] is each device's own, as
    ColwiseParallel's. ClusterError where rows can't be divided; a plain Linear is divided too.
    """

    gathers_input = gathers_output = False

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        group, rank, size = (
            device_mesh.get_group(),
            device_mesh.get_local_rank(),
            device_mesh.size(),
        )
        rows = _rows(module, rank, size)
        module.weight = nn.Parameter(_taken(module, rows), requires_grad=False)
        if module.bias is not None:
            module.bias = nn.Parameter(module.bias.detach()[rows].clone(), requires_grad=False)
        if self.gathers_input:
            module.register_forward_pre_hook(lambda _, inputs: (_gathered(inputs[0], group),))
        if self.gathers_output:
            module.register_forward_hook(lambda _, inputs, output: _gathered(output, group))
        return module


class QuantizedRowwise(QuantizedColwise):
    """For ``parallelize_module``: as RowwiseParallel, of an input [..., K / devices] that each
    device has its own part of, an output that is whole on every device.

    The input is gathered, and output rows are divided, where RowwiseParallel divides K and adds up.
    """

    gathers_input = gathers_output = True


def _rows(module: nn.Module, rank: int, size: int) -> slice:
    n = module.weight.shape[0]
    if n % size:
        raise ClusterError(
            f"{n} output rows cannot be divided by {size} devices. Leave this layer out."
        )
    return slice(rank * n // size, (rank + 1) * n // size)


def _taken(module: nn.Module, rows: slice) -> torch.Tensor:
    weight = module.weight.detach()
    if not hasattr(weight, "quantized_weight"):
        return weight[rows].clone()
    stored = weight.quantized_weight()
    try:
        return to_torchao(stored.format.take_rows(stored, rows))
    except ValueError as error:
        raise ClusterError(
            f"{stored.format} cannot be divided by rows: {error}. Choose int8, or leave this layer "
            "whole."
        ) from None


def _gathered(part: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """The parts of all devices, side by side along the last dimension."""
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, part.contiguous(), group=group)
    return torch.cat(parts, -1)
