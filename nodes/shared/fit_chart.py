"""The chart of Quantize Model: the error that each size has, and what was chosen.

Tested by tests/nodes/bridge/model/test_fit_request.py.
"""

from __future__ import annotations

import torch

from ...quant_core.fit import FitOutcome
from ...quant_core.fit.fitting import GIB, gib
from .bar_chart import bar_chart
from .line_chart import Mark, line_chart

NO_CHART = "The chart of error over size is drawn for the method fit."


def fit_chart(outcome: FitOutcome | None) -> torch.Tensor:
    """An IMAGE; without an outcome, one that says when there is a chart."""
    if outcome is None:
        return bar_chart(NO_CHART, [])
    unit, word = (GIB, "GiB") if outcome.curve[-1].nbytes >= GIB / 10 else (1024**2, "MiB")
    marks = [
        Mark(point.nbytes / unit, point.error, name) for name, point in outcome.uniform.items()
    ]
    chosen = outcome.chosen
    told = f"fit: {gib(chosen.nbytes)}, {chosen.error:.4f}"
    marks.append(Mark(chosen.nbytes / unit, chosen.error, told, chosen=True))
    kind = "predicted error of the final latent"
    if not outcome.measured:
        kind = "assumed error, to compare by: nothing was measured"
    return line_chart(
        "Error over size: widths chosen by layer (line), and one width for all (grey)",
        (word, kind),
        [(point.nbytes / unit, point.error) for point in outcome.curve],
        marks,
    )
