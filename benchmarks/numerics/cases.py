"""The weights to round and the activations to multiply them with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

SHAPE, ROWS = (512, 1024), 256
SIGMA = 0.02


@dataclass(frozen=True)
class Layer:
    """weight [N, K] and activations [M, K], float32."""

    weight: torch.Tensor
    activations: torch.Tensor


def synthetic_cases() -> dict[str, list[Layer]]:
    """Weights of three kinds, one layer each, with Gaussian activations. Of the outlier case every
    hundredth column of the weight is ten times as large."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    chi = normal(5, *SHAPE).square().mean(0).sqrt()
    columns = torch.ones(SHAPE[1])
    columns[::100] = 10
    weights = {
        "Gaussian": normal(*SHAPE),
        "Student t, 5 degrees": normal(*SHAPE) / chi,
        "outlier columns": normal(*SHAPE) * columns,
    }
    return {
        name: [Layer(weight * SIGMA, normal(ROWS, SHAPE[1]))] for name, weight in weights.items()
    }


@torch.inference_mode()
def miniature_case() -> list[Layer]:
    """The layers of the trained miniature that Quantize Model quantizes, each with rows of what
    reaches it while ten digits are drawn in four steps."""
    from graphquant.nodes.quantize_model import GQQuantizeModel
    from lab.miniature.drawing import load_transformer, sample_digits

    model = load_transformer()
    report = GQQuantizeModel.execute(model, "int8").ui["graphquant"][0]
    names = [layer["name"] for layer in report["layers"] if layer["action"] == "quantize"]
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in names}

    def keep(name: str):
        def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            rows = inputs[0].reshape(-1, inputs[0].shape[-1])
            seen[name].append(rows[:: max(1, 4 * len(rows) // ROWS)].float())

        return hook

    root = model.model.diffusion_model
    hooks = [root.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    sample_digits(model, "0123456789", steps=4)
    for hook in hooks:
        hook.remove()
    return [
        Layer(root.get_submodule(name).weight.float().clone(), torch.cat(seen[name]))
        for name in names
    ]
