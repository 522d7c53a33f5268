"""A node's outputs: the object, the report as text, and the report as data for the panel."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..quant_core import Plan, Report
from ..quant_core.report import MIB


def node_output(result: object, report: Report, notes: Sequence[str] = ()) -> io.NodeOutput:
    """``result`` and its report; ``notes`` go to the report's warnings."""
    report = dataclasses.replace(report, warnings=(*report.warnings, *notes))
    return io.NodeOutput(result, report.to_markdown(), ui={"graphquant": [report.to_dict()]})


def unchanged(
    result: object, patcher: ModelPatcher, plan: Plan, notes: Sequence[str] = ()
) -> io.NodeOutput:
    """The same object back, with a report that says so."""
    size = patcher.model_size()
    return node_output(result, Report(plan, "unchanged", 0.0, size, size), notes)


def output_of_parts(
    result: object, reports: Mapping[str, Report], bytes_before: int, bytes_after: int
) -> io.NodeOutput:
    """``result`` and a report for each of its parts, by name; the bytes are those of the whole."""
    text = [f"{bytes_before / MIB:.1f} -> {bytes_after / MIB:.1f} MiB in all"]
    text += [f"## {name}\n{report.to_markdown()}" for name, report in reports.items()]
    parts = [{"part": name, **report.to_dict()} for name, report in reports.items()]
    return io.NodeOutput(result, "\n\n".join(text), ui={"graphquant": parts})
