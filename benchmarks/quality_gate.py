"""The quality gate: what each method does to the trained miniature's pictures, digit by digit.

    python -m benchmarks.quality_gate

32 pictures of all ten digits from four seeds, without and with the LoRA, for every
method: how many a classifier reads as it reads bf16's, the LoRA's style score, and the
relative L2 of single model calls on the same inputs. A figure outside its bound ends it with 1.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

import torch

from lab.comfyui import import_comfyui
from lab.miniature import SIZE
from lab.miniature.classifier import read
from lab.miniature.drawing import (
    call,
    decode,
    in_italics,
    load_transformer,
    load_vae,
    sample_digits,
)
from lab.miniature.pictures import style_score
from lab.pack import ROOT, load_pack
from lab.sampling import relative_l2

RESULTS = ROOT / "benchmarks" / "results"
SEEDS = range(4)
DIGITS = ("01234567", "89012345", "67890123", "45678901")
SIGMAS = (0.95, 0.7, 0.4, 0.1)


@dataclass(frozen=True)
class Bounds:
    """agreement: the least share read as bf16's; call_error and style change: the largest."""

    agreement: float
    call_error: float
    style: float = 0.02


EIGHT_BITS = Bounds(agreement=0.98, call_error=0.05)
INT8 = Bounds(agreement=0.98, call_error=0.02)
BOUNDS = {
    "fp8-dynamic": EIGHT_BITS,
    "fp8-weight-only": EIGHT_BITS,
    "int8": INT8,
    "int8-dynamic": EIGHT_BITS,
    "int4": Bounds(agreement=0.95, call_error=0.20),
}


@dataclass(frozen=True)
class Score:
    """One method's pictures beside bf16's of the same seeds, size and LoRA."""

    method: str
    size: int
    lora: bool
    right: float
    """The share read as the digit asked for."""
    agreement: float
    """The share read as bf16's picture is read."""
    style: float
    """The mean style score: 0 upright, 1 italic."""
    style_change: float
    """Less bf16's of the same row."""
    call_error: float
    """The mean relative L2 of the model's velocity on the same inputs, over SIGMAS."""

    @property
    def passes(self) -> bool:
        bounds = BOUNDS[self.method]
        return (
            self.agreement >= bounds.agreement
            and abs(self.style_change) <= bounds.style
            and self.call_error <= bounds.call_error
        )


@dataclass(frozen=True)
class Run:
    """What one model drew: the digits read, the mean style, and the latents of each seed."""

    read: torch.Tensor
    style: float
    latents: list[torch.Tensor]


def quantize(model, method: str):
    """The MODEL that Quantize Model gives."""
    from graphquant.nodes.quantize_model import GQQuantizeModel

    return GQQuantizeModel.execute(model, method).result[0]


def draw(model, vae, size: int, seeds=SEEDS) -> Run:
    latents = [sample_digits(model, DIGITS[seed], seed, size) for seed in seeds]
    pictures = torch.cat([decode(vae, latent) for latent in latents])
    return Run(read(pictures), style_score(pictures).mean().item(), latents)


def call_error(model, reference, latents: list[torch.Tensor], seeds=SEEDS) -> float:
    """Mean relative L2 of the velocity at SIGMAS on noised latents that bf16 drew."""
    errors = [
        relative_l2(*(call(each, DIGITS[seed], latent, sigma, seed) for each in (model, reference)))
        for seed, latent in zip(seeds, latents, strict=True)
        for sigma in SIGMAS
    ]
    return sum(errors) / len(errors)


def measure(methods, sizes=(SIZE,), loras=(False, True), seeds=SEEDS) -> list[Score]:
    """A Score for bf16 and each method, for each size and with or without the LoRA."""
    with torch.inference_mode():
        vae, base = load_vae(), load_transformer()
        models = {"bf16": base} | {method: quantize(base, method) for method in methods}
        return [
            score
            for size in sizes
            for lora in loras
            for score in _scores(models, vae, size, lora, seeds)
        ]


def _scores(models: dict, vae, size: int, lora: bool, seeds) -> list[Score]:
    asked = torch.tensor([int(digit) for seed in seeds for digit in DIGITS[seed]])
    scores, reference, plain = [], None, None
    for method, model in models.items():
        patched = in_italics(model) if lora else model
        run = draw(patched, vae, size, seeds)
        if reference is None:
            reference, plain = run, patched
        scores.append(
            Score(
                method=method,
                size=size,
                lora=lora,
                right=(run.read == asked).float().mean().item(),
                agreement=(run.read == reference.read).float().mean().item(),
                style=run.style,
                style_change=run.style - reference.style,
                call_error=call_error(patched, plain, reference.latents, seeds),
            )
        )
        print(_row(scores[-1]), flush=True)
    return scores


HEADER = (
    "| method | size | LoRA | read right | as bf16 | style | change | call L2 |",
    "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
)


def _row(score: Score) -> str:
    return (
        f"| {score.method} | {score.size} | {'yes' if score.lora else 'no'} | {score.right:.1%} "
        f"| {score.agreement:.1%} | {score.style:.4f} | {score.style_change:+.4f} "
        f"| {score.call_error:.4f} |"
    )


def markdown(scores: list[Score]) -> str:
    bounds = [
        f"| {method} | {each.agreement:.0%} | {each.style} | {each.call_error} |"
        for method, each in BOUNDS.items()
    ]
    return "\n".join(
        [
            "# Quality gate on the trained miniature",
            "",
            "`python -m benchmarks.quality_gate`: 32 pictures a row, four seeds, all ten digits.",
            "",
            *HEADER,
            *map(_row, scores),
            "",
            "Bounds:",
            "",
            "| method | as bf16, at least | style change, at most | call L2, at most |",
            "| --- | ---: | ---: | ---: |",
            *bounds,
            "",
        ]
    )


def main() -> int:
    torch.set_num_threads(2)
    import_comfyui()
    load_pack()
    print("\n".join(HEADER))
    scores = measure(BOUNDS)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "quality_gate.md").write_text(markdown(scores))
    rows = [asdict(score) for score in scores]
    (RESULTS / "quality_gate.json").write_text(json.dumps(rows, indent=1) + "\n")
    failed = [score for score in scores if score.method in BOUNDS and not score.passes]
    for score in failed:
        print(f"out of bounds: {score}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
