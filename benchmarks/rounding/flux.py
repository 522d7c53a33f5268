"""How long compensating all layers of a FLUX.1 takes here, and what memory one layer needs."""

from __future__ import annotations

import time
from resource import RUSAGE_SELF, getrusage

import torch

# Rows, columns, and how many such layers FLUX.1 has that its preset quantizes.
SHAPES = (
    (9216, 3072, 38),
    (3072, 3072, 38),
    (12288, 3072, 38),
    (3072, 12288, 38),
    (18432, 3072, 38),
    (21504, 3072, 38),
    (3072, 15360, 38),
    (9216, 3072, 38),
)
ROWS = 1024


def flux_lines() -> list[str]:
    """A table of seconds by shape, the sum over the model, and the peak of memory."""
    lines = [
        "",
        "## FLUX.1 on this CPU",
        "",
        "| shape | layers | seconds each |",
        "|---|---:|---:|",
    ]
    total, measured = 0.0, {}
    for n, k, count in SHAPES:
        if (n, k) not in measured:
            measured[n, k] = _seconds(n, k)
        seconds = measured[n, k]
        total += seconds * count
        lines.append(f"| {n} x {k} | {count} | {seconds:.1f} |")
        print(lines[-1], flush=True)
    peak = getrusage(RUSAGE_SELF).ru_maxrss / 2**20
    lines += ["", f"All layers: {total / 60:.0f} minutes on {torch.get_num_threads()} threads; "]
    lines[-1] += f"peak of the process {peak:.1f} GiB, with the largest weight in bfloat16."
    print(lines[-1], flush=True)
    return lines


def _seconds(n: int, k: int) -> float:
    from graphquant.quant_core.calibration import Calibration
    from graphquant.quant_core.formats import Int4
    from graphquant.quant_core.planning.plan import LayerPlan
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
