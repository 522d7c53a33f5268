"""How long compensating all layers of a FLUX.1 takes here, and what memory a layer needs."""

from __future__ import annotations

import time
from resource import RUSAGE_SELF, getrusage

import torch

# Rows, columns, and how many such layers FLUX.1 has that its preset quantizes.
SHAPES = (
    (3072, 3072, 38),
    (9216, 3072, 76),
    (12288, 3072, 38),
    (18432, 3072, 38),
    (21504, 3072, 38),
    (3072, 12288, 38),
    (3072, 15360, 38),
)
ROWS = 1024


def flux_rows() -> list[dict]:
    """A row for each shape: seconds, and the process's peak of memory since it began, in GiB."""
    rows = []
    for n, k, count in SHAPES:
        seconds = _seconds(n, k)
        peak = getrusage(RUSAGE_SELF).ru_maxrss / 2**20
        rows.append({"n": n, "k": k, "layers": count, "seconds": seconds, "peak": peak})
        print(rows[-1], flush=True)
    return rows


def flux_table(rows: list[dict]) -> list[str]:
    """The rows as lines of Markdown, with the sum over the model."""
    total = sum(row["layers"] * row["seconds"] for row in rows)
    lines = ["## FLUX.1's layers on a CPU, int4", ""]
    lines += ["| shape | layers | seconds each | peak of the process, GiB |"]
    lines += ["|---|---:|---:|---:|"]
    lines += [
        f"| {row['n']} x {row['k']} | {row['layers']} | {row['seconds']:.1f} | {row['peak']:.1f} |"
        for row in rows
    ]
    return [*lines, "", f"All layers: {total / 60:.0f} minutes."]


def _seconds(n: int, k: int) -> float:
    from graphquant.quant_core.calibration import Calibration
    from graphquant.quant_core.formats import Int4
    from graphquant.quant_core.planning.decisions import LayerPlan
    from graphquant.quant_core.rounding import CalibratedRounding

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(n, k, generator=generator).mul_(0.02).bfloat16()
    rows = {"layer": torch.randn(ROWS, k, generator=generator).bfloat16()}
    plan = LayerPlan(
        "layer", "Linear", (n, k), "bfloat16", "quantize", "", 2 * n * k, n * k // 2, Int4()
    )
    started = time.perf_counter()
    CalibratedRounding(Calibration({}, rows=rows), biased=["layer"])(plan, weight)
    return time.perf_counter() - started
