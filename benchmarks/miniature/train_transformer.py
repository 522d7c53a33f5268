"""Train the miniature's transformer and its table of classes on digits in the paper style.

    python -m benchmarks.miniature.train_transformer [--steps N] [--seed N] [--threads N]

Needs the VAE of train_vae.py.
"""

from __future__ import annotations

from lab.comfyui import import_comfyui
from lab.miniature import CLASSES, LARGE, MINIATURE, SIZE, TRANSFORMER
from lab.miniature.pictures import PAPER
from lab.nodes.classes import class_table

from .flow import encode, flow_loss, transformer
from .training import options, save, train


def main() -> None:
    chosen = options(__doc__, steps=1800)
    import_comfyui()
    data = encode(PAPER, {SIZE: 2400, LARGE: 700})
    model = transformer()
    table = class_table(MINIATURE.context_length, MINIATURE.context_width)
    parameters = [*model.parameters(), *table.parameters()]
    train(parameters, flow_loss(model, table, data), chosen.steps, rate=1e-3)
    save(model.state_dict(), TRANSFORMER)
    save(dict(table), CLASSES)


if __name__ == "__main__":
    main()
