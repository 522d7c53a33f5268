"""A node's outputs: the object, the report as text, and the report as data for the panel.

The data carry the text, a piece for each report: "Copy report" in the panel's menu joins them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ...quant_core.planning.decisions import ALREADY_QUANTIZED, Plan
from ...quant_core.report import MIB, Report

ALREADY_WARNING = (
    "Nothing was done: what went in is quantized already. Load the unquantized file to quantize it "
    "as asked here, or set requantize on Quantize Model."
)


def node_output(
    result: object,
    report: Report,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
    more: Sequence[object] = (),
) -> io.NodeOutput:
    """The outputs of a node that made ``result``: it and its report, with more warnings and
    notes, and then its further outputs ``more``."""
    if warnings or notes:
        report = _with(report, warnings, notes)
    text = report.to_markdown()
    data = {**report.to_dict(), "text": text}
    return io.NodeOutput(result, text, *more, ui={"graphquant": [data]})


def unchanged(
    result: object,
    patcher: ModelPatcher,
    plan: Plan,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
    more: Sequence[object] = (),
) -> io.NodeOutput:
    """The outputs of a node that had nothing to do: the same object, a report that says so, and
    its further outputs ``more``."""
    size = patcher.model_size()
    report = Report(plan, "unchanged", 0.0, size, size)
    return node_output(result, report, [*_already(plan), *warnings], notes, more)


def output_of_parts(
    results: Sequence[object],
    reports: Mapping[str, Report],
    bytes_before: int,
    bytes_after: int,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> io.NodeOutput:
    """The outputs of a node that made ``results`` of several parts: they and a report of each part,
    by name. The bytes are those of the whole.

    warnings, notes: for the parts that are quantized.
    """
    reports = {
        name: _with(report, warnings, notes)
        if report.plan.quantized
        else _with(report, _already(report.plan))
        for name, report in reports.items()
    }
    texts = [f"## {name}\n{report.to_markdown()}" for name, report in reports.items()]
    total = f"{bytes_before / MIB:.1f} -> {bytes_after / MIB:.1f} MiB in all"
    parts = [
        {"part": name, **report.to_dict(), "text": text}
        for (name, report), text in zip(reports.items(), texts, strict=True)
    ]
    if parts:
        parts[0]["text"] = f"{total}\n\n{texts[0]}"
    return io.NodeOutput(*results, "\n\n".join([total, *texts]), ui={"graphquant": parts})


def _already(plan: Plan) -> list[str]:
    return [ALREADY_WARNING] if plan.method == ALREADY_QUANTIZED else []


def _with(report: Report, warnings: Sequence[str], notes: Sequence[str] = ()) -> Report:
    return dataclasses.replace(
        report, warnings=(*report.warnings, *warnings), notes=(*report.notes, *notes)
    )
