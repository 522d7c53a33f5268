"""What the capability check found, as text.

Tested by tests/nodes/test_fp8_capability_check.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...quant_core.machine.benchmark_gemm import BASELINE, GemmTiming, total_seconds
from ...quant_core.machine.capability import Capability, Machine, MethodCapability
from .kitchen import PLAIN, Kitchen, Operation


def capability_markdown(
    found: Capability, kitchen: Kitchen, timings: Sequence[GemmTiming], recommended: str
) -> str:
    """The report of the capability check: the answer first, then what it rests on."""
    parts = [
        _answer(found, recommended),
        _methods(found.methods),
        _kitchen(kitchen),
        *([_benchmark(timings)] if timings else []),
    ]
    return "\n\n".join(parts)


def _answer(found: Capability, recommended: str) -> str:
    machine = found.machine
    fp8 = "FP8 matmuls in hardware" if found.fp8_supported else "no FP8 matmul in hardware"
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    lines = [f"Use {recommended} on this machine: {_name(machine)} runs {fp8}."]
    if recommended != found.recommended:
        lines.append(f"{recommended} was measured to be faster than {found.recommended}.")
    lines += ["", f"- device: {machine.hardware.device}", f"- versions: {versions}"]
    return "\n".join(lines)


def _name(machine: Machine) -> str:
    if machine.architecture is None:
        return machine.hardware.name
    word = "compute capability " if machine.vendor == "nvidia" else ""
    return f"{machine.hardware.name} ({word}{machine.architecture})"


def _methods(methods: Sequence[MethodCapability]) -> str:
    rows = [
        (method.method, _status(method), method.kernel, f"{method.reason} {method.remedy}".strip())
        for method in methods
    ]
    return "## Methods\n" + _table(("method", "here", "computes by", "why, and what to do"), rows)


def _status(method: MethodCapability) -> str:
    same = method.runs_as == method.method
    return method.status if same else f"{method.status}: runs as {method.runs_as}"


def _kitchen(kitchen: Kitchen) -> str:
    lines = [f"## ComfyUI's own kernels (comfy-kitchen {kitchen.version})"]
    for backend in kitchen.backends:
        unused = f"not used. {backend.reason}. {backend.remedy}".strip()
        lines.append(f"- {backend.name}: " + ("in use" if backend.used else unused))
    if kitchen.emulated:
        formats = ", ".join(kitchen.emulated)
        lines.append(f"- checkpoints in {formats}: emulated, dequantized and computed in full")
    rows = [(op.name, _backend(op), op.reason) for op in kitchen.operations]
    return "\n".join(lines) + "\n\n" + _table(("operation", "runs on", "why no other"), rows)


def _backend(operation: Operation) -> str:
    if operation.backend is None:
        return "nothing"
    return "plain PyTorch" if operation.backend in (PLAIN, "torch") else operation.backend


def _benchmark(timings: Sequence[GemmTiming]) -> str:
    methods = list(timings[0].seconds)
    rows = [
        (
            f"{timing.shape[0]} x {timing.shape[1]}",
            str(timing.layers),
            *(f"{timing.seconds[m] * 1e3:.2f} ms, {timing.speed(m):.2f}x" for m in methods),
        )
        for timing in timings
    ]
    plain = total_seconds(timings, BASELINE)
    speeds = (f"{plain / total_seconds(timings, method):.2f}x" for method in methods)
    rows.append(("all of these", str(sum(timing.layers for timing in timings)), *speeds))
    title = f"## Benchmark: {timings[0].rows} rows of input, speed against {BASELINE}\n"
    return title + _table(("layer", "count", *methods), rows, 1 + len(methods))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0) -> str:
    """numbers: how many columns, the last ones, hold numbers."""
    rules = ["---"] * (len(header) - numbers) + ["---:"] * numbers
    lines = [header, rules, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
