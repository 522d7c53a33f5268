"""Train the reader of digits on pictures in every style; it never sees what a model drew.

python -m benchmarks.miniature.train_classifier [--steps N] [--seed N] [--threads N]
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lab.miniature import READER, SIZE
from lab.miniature.classifier import new_classifier, read
from lab.miniature.pictures import ITALIC, NIGHT, PAPER, digits, draw, strokes_of

from .training import options, placements, save, train

BATCH = 64
STYLES = (PAPER, NIGHT, ITALIC)


def main() -> None:
    chosen = options(__doc__, steps=1200)
    model = new_classifier()
    strokes, labels = digits(held_out=False)

    def loss(step: int) -> torch.Tensor:
        drawn = torch.randint(len(labels), (BATCH,))
        style = STYLES[step % 3]
        pictures = draw(strokes[drawn], SIZE, style, placements(BATCH))
        noisy = pictures + 0.05 * torch.randn_like(pictures)
        return F.cross_entropy(model(strokes_of(noisy)), labels[drawn])

    train(model.parameters(), loss, chosen.steps, rate=2e-3, every=200)
    save(model.state_dict(), READER)
    strokes, labels = digits(held_out=True)
    for style in STYLES:
        right = (read(draw(strokes, SIZE, style)) == labels).float().mean().item()
        print(f"held-out digits, {style}: {right:.1%} of {len(labels)} read right")


if __name__ == "__main__":
    main()
