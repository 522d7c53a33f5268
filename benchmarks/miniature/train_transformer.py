"""Train the miniature's transformer and its table of classes on digits in the paper style.

    python -m benchmarks.miniature.train_transformer
    python -m benchmarks.miniature.train_transformer --resume --steps 1200 --rate 7e-4 \\
        --large-share 0.65 --seed 1

The second run goes on from the first one's files: it is for the larger size, which comes late.
Also --threads. Needs the VAE of train_vae.py.
"""

from __future__ import annotations

from safetensors.torch import load_file

from lab.comfyui import import_comfyui
from lab.miniature import CLASSES, LARGE, MINIATURE, SIZE, TRANSFORMER
from lab.miniature.pictures import PAPER
from lab.nodes.classes import class_table

from .flow import encode, flow_loss, transformer
from .training import options, save, train


def main() -> None:
    chosen = options(
        __doc__,
        steps=1800,
        resume={"action": "store_true", "help": "go on from the saved files"},
        rate={"type": float, "default": 1e-3, "help": "the learning rate's peak"},
        large_share={"type": float, "default": 0.25, "help": "steps on the larger size"},
    )
    import_comfyui()
    data = encode(PAPER, {SIZE: 2400, LARGE: 700})
    model = transformer()
    table = class_table(MINIATURE.context_length, MINIATURE.context_width)
    if chosen.resume:
        model.load_state_dict(load_file(TRANSFORMER))
        table.load_state_dict(load_file(CLASSES))
    parameters = [*model.parameters(), *table.parameters()]
    train(parameters, flow_loss(model, table, data, chosen.large_share), chosen.steps, chosen.rate)
    save(model.state_dict(), TRANSFORMER)
    save(dict(table), CLASSES)


if __name__ == "__main__":
    main()
