"""What the training scripts share: augmented data, the schedule, and a progress line."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file

from lab.miniature.pictures import MARGIN


def options(description: str, steps: int, **further) -> argparse.Namespace:
    """The scripts' common command line; seeds torch and sets its threads accordingly.

    ``further``: options of one script alone, by name, with add_argument's own arguments.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    for name, arguments in further.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **arguments)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.manual_seed(chosen.seed)
    torch.set_num_threads(chosen.threads)
    return chosen


def placements(count: int) -> torch.Tensor:
    """Random small rotations, sizes, slants and shifts for ``draw``: (count, 2, 3)."""
    angle, slant = 0.12 * torch.randn(2, count)
    size = MARGIN * (1 + 0.06 * torch.randn(count))
    cos, sin = size * angle.cos(), size * angle.sin()
    shift = 0.06 * torch.randn(count, 2, 1)
    turn = torch.stack([cos, slant - sin, sin, cos], dim=1).view(count, 2, 2)
    return torch.cat([turn, shift], dim=2)


def train(
    parameters: Iterable[torch.nn.Parameter],
    loss: Callable[[int], torch.Tensor],
    steps: int,
    rate: float,
    every: int = 50,
) -> float:
    """AdamW with warm-up and linear decay; ``loss(step)`` is minimised. Returns its last mean."""
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    warm_up = min(100, steps // 10 + 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, (steps - step) / (steps - warm_up))
    )
    begun, recent = time.monotonic(), []
    for step in range(steps):
        optimizer.zero_grad()
        with torch.autograd.graph.allow_mutation_on_saved_tensors():  # Flux blocks add in place
            value = loss(step)
            value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        recent = [*recent[1 - every :], value.item()]
        if (step + 1) % every == 0:
            mean = sum(recent) / len(recent)
            seconds = time.monotonic() - begun
            print(f"step {step + 1}/{steps}  loss {mean:.4f}  {seconds:.0f} s", flush=True)
    return sum(recent) / len(recent)


def save(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Write the weights as bf16, the precision that the miniature ships in."""
    halves = {name: weight.detach().bfloat16().contiguous() for name, weight in weights.items()}
    save_file(halves, path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
