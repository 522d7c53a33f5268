"""Two models on the same noise: how far calls, latents and pictures are apart, and a verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from .relative_error import Error


@dataclass(frozen=True)
class Thresholds:
    """The limits that a seed must keep to pass.

    relative_l2 and cosine: of the final latent. psnr (dB), mae (steps of 1/255) and lpips: of the
    pictures.
    """

    relative_l2: float
    cosine: float
    psnr: float
    mae: float
    lpips: float = 0.15


# vLLM-Omni's published levels. Its cosine and relative L2 have two levels, the others three.
LEVELS = {
    "smoke": Thresholds(0.20, 0.98, 20, 12),
    "good": Thresholds(0.20, 0.98, 25, 6),
    "strict": Thresholds(0.08, 0.995, 30, 3),
}


@dataclass(frozen=True)
class CallError:
    """The error of one call of the models on the same inputs, at a step of the reference's run.

    sigma: the noise level. error: of the predicted noise or velocity, which is the model's input
    less its prediction.
    """

    sigma: float
    error: Error


@dataclass(frozen=True)
class Likeness:
    """How alike the pictures of one seed are; the worst value where there are several. ms_ssim and
    lpips: None where not measured."""

    psnr: float
    mae: float
    ssim: float
    ms_ssim: float | None = None
    lpips: float | None = None


@dataclass(frozen=True)
class SeedResult:
    """What was measured for one seed: its calls, the final latent of a run of its own, and its
    pictures."""

    seed: int
    calls: tuple[CallError, ...]
    latent: Error
    pictures: Likeness | None = None

    def failures(self, level: Thresholds) -> list[str]:
        """The limits of ``level`` that this seed misses, as sentences."""
        checks = [
            ("latent L2", self.latent.relative_l2, level.relative_l2, False),
            ("latent cosine", self.latent.cosine, level.cosine, True),
        ]
        if self.pictures is not None:
            checks += [
                ("PSNR", self.pictures.psnr, level.psnr, True),
                ("MAE", self.pictures.mae, level.mae, False),
                ("LPIPS", self.pictures.lpips, level.lpips, False),
            ]
        return [
            f"{name} {value:.4g}, bound {bound:g}"
            for name, value, bound, at_least in checks
            if value is not None and not (value >= bound if at_least else value <= bound)
        ]


@dataclass(frozen=True)
class Comparison:
    """The comparison of two models over several seeds.

    level: a key of LEVELS. notes: sentences about how it was measured.
    """

    seeds: tuple[SeedResult, ...]
    level: str
    notes: tuple[str, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether every seed keeps the limits of the level."""
        return not any(each.failures(LEVELS[self.level]) for each in self.seeds)

    @property
    def worst(self) -> float:
        """The largest relative L2 of the final latent of any seed."""
        return max(each.latent.relative_l2 for each in self.seeds)

    def mean_call_errors(self) -> list[tuple[float, float, float]]:
        """The mean error of each call over the seeds: (sigma, relative L2, cosine), in the order of
        calls.

        Adaptive samplers make runs of different lengths; there are as many entries as the shortest
        run has calls.
        """
        count = len(self.seeds)
        return [
            (
                calls[0].sigma,
                sum(call.error.relative_l2 for call in calls) / count,
                sum(call.error.cosine for call in calls) / count,
            )
            for calls in zip(*(each.calls for each in self.seeds), strict=False)
        ]

    def to_dict(self) -> dict:
        """Everything that was measured, as plain values."""
        level = LEVELS[self.level]
        return {
            "level": self.level,
            "thresholds": asdict(level),
            "passes": self.passes,
            "notes": list(self.notes),
            "seeds": [_seed_dict(each, level) for each in self.seeds],
        }

    def to_json(self) -> str:
        """``to_dict`` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def summary(self) -> str:
        """One line: the verdict and what it rests on."""
        failed = sum(bool(each.failures(LEVELS[self.level])) for each in self.seeds)
        verdict = f"fail, {failed} of {len(self.seeds)} seeds" if failed else "pass"
        return f"{self.level}: {verdict}; latent relative L2 {self.worst:.4f} at most"

    def to_markdown(self) -> str:
        """The verdict, then a table of seeds and a table of calls."""
        level = LEVELS[self.level]
        lines = [self.summary(), "", *(f"- {note}" for note in self.notes), ""]
        lines += [_row(SEED_COLUMNS), _row(["---:"] * (len(SEED_COLUMNS) - 1) + ["---"])]
        lines += [_row(_seed_cells(each, level)) for each in self.seeds]
        lines += ["", "Calls on the same inputs, mean over the seeds:", ""]
        lines += [_row(("call", "sigma", "relative L2", "cosine")), _row(["---:"] * 4)]
        for call, (sigma, relative, cosine) in enumerate(self.mean_call_errors(), start=1):
            lines.append(_row((str(call), f"{sigma:.4g}", f"{relative:.4f}", f"{cosine:.5f}")))
        return "\n".join(lines)


SEED_COLUMNS = (
    *("seed", "call L2", "latent L2", "latent cosine"),
    *("PSNR dB", "MAE", "SSIM", "MS-SSIM", "LPIPS", "verdict"),
)


def _seed_cells(each: SeedResult, level: Thresholds) -> list[str]:
    calls = [call.error.relative_l2 for call in each.calls]
    mean = f"{sum(calls) / len(calls):.4f}" if calls else "-"  # a patch may call the model itself
    cells = [str(each.seed), mean, f"{each.latent.relative_l2:.4f}"]
    shown = each.pictures
    likeness = (
        [None] * 5
        if shown is None
        else [shown.psnr, shown.mae, shown.ssim, shown.ms_ssim, shown.lpips]
    )
    digits = (1, 2, 4, 4, 4)
    cells += [f"{each.latent.cosine:.5f}"]
    cells += ["-" if v is None else f"{v:.{d}f}" for v, d in zip(likeness, digits, strict=True)]
    return [*cells, "; ".join(each.failures(level)) or "pass"]


def _seed_dict(each: SeedResult, level: Thresholds) -> dict:
    likeness = None if each.pictures is None else _finite(asdict(each.pictures))
    return {
        "seed": each.seed,
        "calls": [{"sigma": call.sigma, **call.error.to_dict()} for call in each.calls],
        "latent": each.latent.to_dict(),
        "pictures": likeness,
        "failures": each.failures(level),
    }


def _finite(values: dict) -> dict:
    """JSON has no infinity, which the PSNR of equal pictures is: None in its place."""
    return {k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
