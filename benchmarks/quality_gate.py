"""The quality gate: what each method does to the trained miniature's pictures, digit by digit.

    python -m benchmarks.quality_gate

The headline is the relative L2 of the final latent over 64 pictures. Beside it, 32 pictures of all
ten digits from four seeds, at two sizes, without and with the LoRA, for every method: how many a
classifier reads as it reads bf16's, the LoRA's style score, and the relative L2 of single model
calls on the same inputs. A method of CORE outside its bounds ends it with 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch

from lab.comfyui import comfyui_version, import_comfyui
from lab.miniature import LARGE, SIZE
from lab.miniature.classifier import logits
from lab.miniature.drawing import (
    call,
    decode,
    in_italics,
    load_transformer,
    load_vae,
    noise,
    sample_from,
)
from lab.miniature.pictures import style_score
from lab.pack import ROOT, load_pack
from lab.sampling import relative_l2

from .measuring import versions

RESULTS = ROOT / "benchmarks" / "results"
DIGITS = ("01234567", "89012345", "67890123", "45678901")
"""What each seed draws, from seed 0 on."""
ASKED = "".join(DIGITS)
HEADLINE = ("0123456789" * 7)[:64]
HEADLINE_SEED = 5
PACKAGES = ("torch", "torchao", "comfy-kitchen", "safetensors")
SIGMAS = (0.95, 0.7, 0.4, 0.1)


@dataclass(frozen=True)
class Bounds:
    """agreement: the least share read as bf16's; with 32 pictures 98 % are all of them.
    call_error: the largest."""

    agreement: float
    call_error: float


STYLE = 0.02
"""How far a method's mean style score with the LoRA may be from bf16's, as a share of bf16's."""

CORE = {
    "fp8-dynamic": Bounds(agreement=0.98, call_error=0.035),
    "fp8-weight-only": Bounds(agreement=0.98, call_error=0.035),
    "int8": Bounds(agreement=0.98, call_error=0.010),
    "int8-dynamic": Bounds(agreement=0.98, call_error=0.020),
    "int4": Bounds(agreement=0.95, call_error=0.125),
    "llm.int8": Bounds(agreement=0.98, call_error=0.020),
    "fp8-block": Bounds(agreement=0.98, call_error=0.035),
    "mxfp8": Bounds(agreement=0.98, call_error=0.035),
    "int8-convrot": Bounds(agreement=0.98, call_error=0.020),
    "w6a8": Bounds(agreement=0.95, call_error=0.030),
    "w4a8": Bounds(agreement=0.95, call_error=0.090),
    "int6": Bounds(agreement=0.95, call_error=0.030),
    "int5": Bounds(agreement=0.95, call_error=0.060),
    "int4-dynamic": Bounds(agreement=0.95, call_error=0.130),
}
"""The methods that the tests gate. The others are measured, and told when they lie outside."""

BOUNDS = CORE | {
    "nf4-fine": Bounds(agreement=0.95, call_error=0.100),
    "fp6": Bounds(agreement=0.95, call_error=0.070),
    "nf4": Bounds(agreement=0.95, call_error=0.125),
    "nvfp4": Bounds(agreement=0.95, call_error=0.125),
    "fp4": Bounds(agreement=0.95, call_error=0.160),
}
UNBOUND = ("int3", "int2")
"""Measured, and not expected to keep anything."""


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
    flips: tuple[str, ...] = ()
    """The pictures read otherwise than bf16's, in words."""
    latent_error: float | None = None
    """Relative L2 of the final latent over the pictures of HEADLINE; of the small size without the
    LoRA alone."""

    @property
    def passes(self) -> bool:
        bounds = BOUNDS[self.method]
        reference = abs(self.style - self.style_change)
        return (
            self.agreement >= bounds.agreement
            and self.call_error <= bounds.call_error
            and (not self.lora or abs(self.style_change) <= STYLE * reference)
        )

    @property
    def verdict(self) -> str:
        if self.method not in BOUNDS:
            return "-"
        return "pass" if self.passes else "outside"


@dataclass(frozen=True)
class Run:
    """What one model drew. likely: of each digit in each picture. style: the mean. calls: its
    velocities at SIGMAS on noised latents that bf16 drew."""

    likely: torch.Tensor
    style: float
    latents: torch.Tensor
    calls: list[torch.Tensor]

    @property
    def read(self) -> torch.Tensor:
        return self.likely.argmax(1)


def quantize(model, method: str):
    """The MODEL that Quantize Model gives."""
    from graphquant.nodes.quantize_model import GQQuantizeModel

    return GQQuantizeModel.execute(model, method).result[0]


def draw(model, vae, start: torch.Tensor, reference: Run | None) -> Run:
    """The digits of ASKED, from the noise ``start``, in one batch. reference: bf16's run, None for
    that itself."""
    latents = sample_from(model, ASKED, start)
    pictures = decode(vae, latents)
    drawn = latents if reference is None else reference.latents
    calls = [call(model, ASKED, drawn, start, sigma) for sigma in SIGMAS]
    return Run(logits(pictures).softmax(1), style_score(pictures).mean().item(), latents, calls)


def call_error(run: Run, reference: Run) -> float:
    """Mean relative L2 of the velocity at SIGMAS."""
    return sum(map(relative_l2, run.calls, reference.calls)) / len(SIGMAS)


def measure(methods, sizes=(SIZE, LARGE), loras=(False, True)) -> list[Score]:
    """A Score for bf16 and each method, for each size and with or without the LoRA."""
    with torch.inference_mode():
        vae, base = load_vae(), load_transformer()
        models = {"bf16": base} | {method: quantize(base, method) for method in methods}
        return [
            score for size in sizes for lora in loras for score in _scores(models, vae, size, lora)
        ]


def _scores(models: dict, vae, size: int, lora: bool) -> list[Score]:
    start = torch.cat([noise(len(digits), seed, size) for seed, digits in enumerate(DIGITS)])
    asked = torch.tensor([*map(int, ASKED)])
    scores, reference, latents = [], None, None
    for method, model in models.items():
        patched = in_italics(model) if lora else model
        error = None
        if size == SIZE and not lora:
            drawn = sample_from(patched, HEADLINE, noise(len(HEADLINE), HEADLINE_SEED))
            latents = drawn if latents is None else latents
            error = relative_l2(drawn, latents)
        run = draw(patched, vae, start, reference)
        reference = reference or run
        scores.append(
            Score(
                method=method,
                size=size,
                lora=lora,
                right=(run.read == asked).float().mean().item(),
                agreement=(run.read == reference.read).float().mean().item(),
                style=run.style,
                style_change=run.style - reference.style,
                call_error=call_error(run, reference),
                flips=_flips(run, reference),
                latent_error=error,
            )
        )
        print(_row(scores[-1]), flush=True)
    return scores


def _flips(run: Run, reference: Run) -> tuple[str, ...]:
    return tuple(
        f"a {ASKED[i]}, read {reference.read[i]} in bf16 ({reference.likely[i].max():.0%} sure), "
        f"now {run.read[i]}"
        for i in (run.read != reference.read).nonzero().flatten().tolist()
    )


HEADER = (
    "| method | size | LoRA | read right | as bf16 | style | change | call L2 | gate "
    "| read otherwise |",
    "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
)


def _row(score: Score) -> str:
    return (
        f"| {score.method} | {score.size} | {'yes' if score.lora else 'no'} | {score.right:.1%} "
        f"| {score.agreement:.1%} | {score.style:.4f} | {score.style_change:+.4f} "
        f"| {score.call_error:.4f} | {score.verdict} | {'; '.join(score.flips)} |"
    )


def _by_latent(scores: list[Score]) -> list[Score]:
    measured = [each for each in scores if each.latent_error is not None]
    return sorted(measured, key=lambda each: each.latent_error)


def _versions() -> list[str]:
    """What was measured with, in words."""
    comfyui = ".".join(map(str, comfyui_version()))
    return [f"ComfyUI {comfyui}", *(f"{name} {n}" for name, n in versions(PACKAGES).items())]


def markdown(scores: list[Score], measured_with: Iterable[str] = ()) -> str:
    """The page of results. measured_with: the versions of what it was measured with."""
    bounds = [
        f"| {method} | {each.agreement:.0%} | {each.call_error} |"
        for method, each in BOUNDS.items()
    ]
    return "\n".join(
        [
            "# Quality gate on the trained miniature",
            "",
            "`python -m benchmarks.quality_gate`",
            "",
            *(f"- {each}" for each in measured_with),
            "",
            "## The final latent",
            "",
            f"Relative L2 over {len(HEADLINE)} pictures of {SIZE} x {SIZE}, least first: the "
            "figure to compare methods by.",
            "",
            "| method | latent L2 |",
            "| --- | ---: |",
            *(f"| {each.method} | {each.latent_error:.4f} |" for each in _by_latent(scores)),
            "",
            "## Digits, style and single calls",
            "",
            "32 pictures a row, four seeds, all ten digits. A classifier's reading is a check that "
            "nothing is broken; it ranks no method.",
            "",
            *HEADER,
            *map(_row, scores),
            "",
            f"Bounds. Style with the LoRA: within {STYLE:.0%} of bf16's.",
            "",
            "| method | as bf16, at least | call L2, at most |",
            "| --- | ---: | ---: |",
            *bounds,
            "",
        ]
    )


def main() -> int:
    torch.set_num_threads(2)
    import_comfyui()
    load_pack()
    print("\n".join(HEADER))
    scores = measure([*BOUNDS, *UNBOUND])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "quality_gate.md").write_text(markdown(scores, _versions()))
    rows = [asdict(score) for score in scores]
    (RESULTS / "quality_gate.json").write_text(json.dumps(rows, indent=1) + "\n")
    failed = [score for score in scores if score.method in CORE and not score.passes]
    for score in failed:
        print(f"out of bounds: {score}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
