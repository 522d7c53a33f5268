"""Train the miniature's LoRA: the same digits, in italics. Rank 8 on attention and MLP.

    python -m benchmarks.miniature.train_lora [--steps N] [--seed N] [--threads N]

Needs the files of train_vae.py and train_transformer.py.
"""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch.nn.utils import parametrize

from lab.comfyui import import_comfyui
from lab.miniature import CLASSES, LARGE, LORA, SIZE, TRANSFORMER
from lab.miniature.pictures import ITALIC

from .flow import encode, flow_loss, transformer
from .training import options, save, train

RANK = 8
TRAINED = ("attn.qkv", "attn.proj", "mlp.0", "mlp.2", "linear1", "linear2")


class LowRank(torch.nn.Module):
    """A weight (N, K) plus up (N, RANK) @ down (RANK, K); up starts at zero."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        rows, columns = weight.shape
        self.down = torch.nn.Parameter(torch.randn(RANK, columns) / columns**0.5)
        self.up = torch.nn.Parameter(torch.zeros(rows, RANK))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.up @ self.down


def main() -> None:
    chosen = options(__doc__, steps=300)
    import_comfyui()
    data = encode(ITALIC, {SIZE: 600, LARGE: 200})
    model = transformer().requires_grad_(False)
    model.load_state_dict(load_file(TRANSFORMER))
    table = {name: rows.float() for name, rows in load_file(CLASSES).items()}
    adapters = {
        name: LowRank(layer.weight)
        for name, layer in model.named_modules()
        if name.endswith(TRAINED)
    }
    for name, adapter in adapters.items():
        parametrize.register_parametrization(model.get_submodule(name), "weight", adapter)
    parameters = [weight for adapter in adapters.values() for weight in adapter.parameters()]
    train(parameters, flow_loss(model, table, data, large_share=0.5), chosen.steps, rate=2e-3)
    save({key: weight for name in adapters for key, weight in _keys(name, adapters[name])}, LORA)


def _keys(name: str, adapter: LowRank) -> list[tuple[str, torch.Tensor]]:
    """The names that ComfyUI's LoRA loaders read; without an alpha the scale is 1."""
    prefix = f"diffusion_model.{name}"
    return [
        (f"{prefix}.lora_up.weight", adapter.up),
        (f"{prefix}.lora_down.weight", adapter.down),
    ]


if __name__ == "__main__":
    main()
