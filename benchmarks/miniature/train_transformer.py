"""Train the miniature's transformer and its table of classes on digits in the paper style.

    python -m benchmarks.miniature.train_transformer [--steps N] [--seed N] [--threads N]

Needs the VAE of train_vae.py.
"""

from __future__ import annotations

import torch

from lab.comfyui import import_comfyui
from lab.miniature import CLASSES, MINIATURE, SIZE, TRANSFORMER
from lab.miniature.pictures import PAPER
from lab.nodes.classes import class_table
from lab.tiny_models import flux_module

from .flow import LARGE, encode, flow_loss
from .training import options, save, train


def main() -> None:
    chosen = options(__doc__, steps=2500)
    import_comfyui()
    import comfy.model_management

    comfy.model_management.in_training = True  # its fused rope has no gradient
    data = encode(PAPER, {SIZE: 3, LARGE: 1})
    placement = {"dtype": torch.float32, "device": "cpu", "operations": torch.nn}
    model = flux_module(MINIATURE, 128, depth=2, singles=4, guidance_embed=False, **placement)
    table = class_table(MINIATURE.context_length, MINIATURE.context_width)
    parameters = [*model.parameters(), *table.parameters()]
    with torch.autograd.graph.allow_mutation_on_saved_tensors():  # the blocks add in place
        train(parameters, flow_loss(model, table, data), chosen.steps, rate=1e-3)
    save(model.state_dict(), TRANSFORMER)
    save(dict(table), CLASSES)


if __name__ == "__main__":
    main()
