"""What every benchmark does alike: name the machine, take turns, write the results."""

from __future__ import annotations

import gc
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from lab.pack import ROOT

RESULTS = Path(os.environ.get("GRAPHQUANT_RESULTS") or ROOT / "benchmarks" / "results")
MIB = 1024 * 1024
_PACKAGES = ("torchao", "triton", "comfy-kitchen")
_CPUINFO = Path("/proc/cpuinfo")


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def named(benchmark: str, dynamic_vram: bool) -> str:
    """What the results are filed under; with ``dynamic_vram`` that is switched on. SystemExit where
    it does not run. ComfyUI is imported."""
    if not dynamic_vram:
        return benchmark
    from lab.real_dynamic_vram import switch_on_dynamic_vram

    if not switch_on_dynamic_vram():
        raise SystemExit("Dynamic VRAM does not run here: it needs an NVIDIA GPU.")
    return f"{benchmark}_dynamic_vram"


def machine() -> dict:
    """The CPU and the software; the threads that benchmarks use."""
    text = _CPUINFO.read_text() if _CPUINFO.exists() else ""
    return {
        "cpu": text.partition("model name\t: ")[2].partition("\n")[0] or platform.machine(),
        "threads": min(2, os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchao": installed("torchao"),
    }


def installed(package: str) -> str:
    """Its version."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Of those of ``packages`` that are installed, or unpacked where Python finds them."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware(device: torch.device) -> dict:
    """``machine`` with the GPU where ``device`` is one, and ComfyUI where it was imported."""
    about = machine()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        gpu = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        about = {"gpu": gpu, "cuda": torch.version.cuda, **about}
    about |= {package: installed(package) for package in _PACKAGES}
    if os.environ.get("GRAPHQUANT_COMFYUI"):
        from lab.comfyui import comfyui_version

        about["comfyui"] = ".".join(map(str, comfyui_version()))
    return about


def use_threads(device: torch.device) -> None:
    """On a CPU, those that ``machine`` names."""
    if device.type == "cpu":
        torch.set_num_threads(machine()["threads"])


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turn(
    cases: Mapping[str, Callable[[], object]],
    repeats: int,
    device: torch.device | None = None,
    shortest: float = 0.0,
) -> dict[str, float]:
    """``seconds_in_turn``, on a CPU where no device is given."""
    from graphquant.quant_core.timing import seconds_in_turn

    return seconds_in_turn(cases, device or torch.device("cpu"), repeats, shortest)


def peak_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    """Bytes of GPU memory in use at most during ``run``, all that is there included. None of a
    CPU, whose peak only a process of its own shows (``benchmarks.memory``)."""
    if device.type != "cuda":
        return None
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    run()
    wait_for(device)
    return torch.cuda.max_memory_allocated(device)


def added_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    """As ``peak_bytes``, without what is there before."""
    gc.collect()
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    peak = peak_bytes(run, device)
    return None if peak is None else peak - before


def about(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a markdown table; numbers with three digits, None as a dash."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return lines + [f"| {' | '.join(map(cell, row))} |" for row in rows]


def cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write(name: str, results: Mapping, text: str, device: torch.device) -> None:
    """``name``.md and .json, of a GPU beside those of the CPU; and on the screen."""
    name = name if device.type == "cpu" else f"{name}_{device.type}"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / f"{name}.md").write_text(text)
    print(text)
