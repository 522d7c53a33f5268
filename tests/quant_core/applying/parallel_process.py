"""One of two processes: quantizes a model, spreads it over both, and tells what it computes.

python -m tests.quant_core.applying.parallel_process RANK PORT METHOD ...
"""

import json
import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

from quant_core import quantize_component
from quant_core.applying.parallel import QuantizedColwise, QuantizedRowwise, quantized_parameters


class Block(nn.Module):
    """A feed-forward block with something that is not quantized."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(256)
        self.up = nn.Linear(256, 512)
        self.down = nn.Linear(512, 256)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def model_of(method):
    torch.manual_seed(0)
    model = nn.Sequential(Block(), Block()).requires_grad_(False)
    quantize_component(model, method)
    return model


def sharded(method, mesh):
    model = model_of(method)
    whole = quantized_parameters(model)
    for block in model:
        fully_shard(block, mesh=mesh, ignored_params=whole)
    fully_shard(model, mesh=mesh, ignored_params=whole)
    assert isinstance(model[0].norm.weight, torch.distributed.tensor.DTensor)
    return model


def divided(method, mesh):
    model = model_of(method)
    for block in model:
        parallelize_module(block, mesh, {"up": QuantizedColwise(), "down": QuantizedRowwise()})
    assert model[0].up.weight.shape == (256, 256) and model[0].down.weight.shape == (128, 512)
    return model


def refusal(spread):
    try:
        spread()
    except Exception as error:
        return str(error)
    return ""


def results(method, mesh):
    x = torch.randn(8, 256, generator=torch.Generator().manual_seed(1))
    expected = model_of(method)(x)
    errors = {}
    for name, spread in (("fsdp", sharded), ("tp", divided)):
        y = spread(method, mesh)(x)
        errors[name] = ((y - expected).norm() / expected.norm()).item()
    plain = refusal(lambda: fully_shard(model_of(method)[0], mesh=mesh))
    styles = {"up": ColwiseParallel()}
    stock = refusal(lambda: parallelize_module(model_of(method)[0], mesh, styles))
    return {**errors, "plain fsdp": plain, "plain tp": stock}


def main(rank, port, *methods):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=rank, WORLD_SIZE="2")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    with torch.no_grad():
        found = {method: results(method, mesh) for method in methods}
    if rank == "0":
        sys.stdout.write(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
