"""All that a GPU has to show, in one go of minutes: tests, then benchmarks.

    python -m benchmarks.on_a_gpu [--minutes 9] [--parts kernels step ...] [--archive results.tgz]

Run with GRAPHQUANT_COMFYUI naming a ComfyUI folder, and GRAPHQUANT_RESULTS another folder for
results if you like. What matters most comes first; each part is a process with a time limit of its
own, and one that fails or is cut short takes nothing from the others. After each,
``on_a_gpu_cuda.md`` says how all went, and --archive packs results and logs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lab.pack import ROOT

from .measuring import RESULTS, about, default_device, hardware, table, write
from .step import missed_bars


@dataclass(frozen=True)
class Part:
    """limit: seconds that it may take. arguments: of ``python -m``."""

    name: str
    limit: int
    arguments: tuple[str, ...]


_TESTS = ("pytest", "-q", "-p", "no:cacheprovider")
_KERNELS = "tests/quant_core/kernels"
_FEW = ("--methods", "fp8-dynamic", "int8-dynamic")
# An H100 with sixteen cores is meant to take half of each limit.
PARTS = (
    Part("kernels", 200, (*_TESTS, f"{_KERNELS}/test_triton.py", f"{_KERNELS}/test_gpu.py")),
    Part("layer", 120, ("benchmarks.layer", "--models", "FLUX.1", "--no-compile")),
    Part("step", 330, ("benchmarks.step", "--repeats", "3", "--compile", "fp8-dynamic")),
    Part(
        "step with dynamic VRAM",
        150,
        ("benchmarks.step", "--repeats", "3", "--dynamic-vram", *_FEW, "--compile"),
    ),
    Part(
        "LoRA with dynamic VRAM",
        100,
        ("benchmarks.lora", "--dynamic-vram", *_FEW, "--ranks", "16", "--repeats", "3"),
    ),
    Part("lora", 150, ("benchmarks.lora", *_FEW, "--ranks", "16")),
    Part("nodes", 150, (*_TESTS, "tests/nodes/test_on_a_gpu.py")),
    Part("quantize", 60, ("benchmarks.quantize",)),
    Part("predicted", 60, ("benchmarks.predict", "--cards", "H100")),
    Part("more layers", 240, ("benchmarks.layer", "--no-compile", "--repeats", "5")),
)


@dataclass(frozen=True)
class Outcome:
    """end: "done", "failed", "cut short" or "no time left". last: lines that it printed."""

    part: str
    end: str
    seconds: float = 0.0
    last: tuple[str, ...] = ()


def run_part(part: Part, limit: float, logs: Path) -> Outcome:
    """With all that it started, ended after ``limit`` seconds."""
    log = logs / f"{part.name.replace(' ', '_')}.log"
    command = [sys.executable, "-m", *part.arguments]
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            end = "failed" if process.wait(limit) else "done"
        except subprocess.TimeoutExpired:
            end = "cut short"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    lines = log.read_text(errors="replace").splitlines()
    return Outcome(part.name, end, time.monotonic() - started, tuple(lines[-40:]))


def run(parts: Sequence[Part], seconds: float, archive: Path | None) -> list[Outcome]:
    """All of ``parts`` that ``seconds`` suffice for."""
    device = default_device()
    ends = time.monotonic() + seconds
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            left = ends - time.monotonic()
            if left < min(30, part.limit):
                outcomes.append(Outcome(part.name, "no time left"))
            else:
                print(f"== {part.name}", flush=True)
                outcomes.append(run_part(part, min(part.limit, left), Path(folder)))
            results = {"hardware": hardware(device), "parts": list(map(asdict, outcomes))}
            write("on_a_gpu", results, markdown(results), device)
            if archive:
                pack(archive, Path(folder))
    return outcomes


def pack(archive: Path, logs: Path) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(RESULTS, "results")
        tar.add(logs, "logs")


def markdown(results: dict) -> str:
    parts = results["parts"]
    rows = [[part["part"], part["end"], round(part["seconds"])] for part in parts]
    lines = [f"{about(results['hardware'])}.", "", *table(("part", "end", "seconds"), rows)]
    step = RESULTS / "step_cuda.json"
    if step.exists():
        missed = missed_bars(json.loads(step.read_text()))
        lines += ["", "Bars of a step: " + ("; ".join(missed) or "none missed") + "."]
    for part in parts:
        if part["end"] in ("failed", "cut short"):
            lines += ["", f"## {part['part']}: {part['end']}", "", "```", *part["last"], "```"]
    return "\n".join(lines) + "\n"


def main() -> int:
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=9, help="for all parts together")
    parser.add_argument("--parts", nargs="+", choices=names, default=names, metavar="PART")
    parser.add_argument("--archive", type=Path, help="a .tgz, written anew after each part")
    parser.add_argument("--without-gpu", action="store_true", help="to try this script itself")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.without_gpu:
        print("PyTorch sees no CUDA GPU: each benchmark runs on a CPU by itself.", file=sys.stderr)
        return 1
    chosen = [part for part in PARTS if part.name in options.parts]
    outcomes = run(chosen, options.minutes * 60, options.archive)
    return int(any(outcome.end != "done" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
