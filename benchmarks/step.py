"""One sampling step of a FLUX.1-sized transformer in ComfyUI, by method: seconds and peak memory.

    python -m benchmarks.step [--methods fp8-dynamic int8 ...] [--no-compile] [--repeats 5]

Run with GRAPHQUANT_COMFYUI naming a ComfyUI folder (``python3 dev.py setup`` fetches one). Random
weights; the models take turns, and speeds are ratios to bf16's of the same run. On a GPU the full
size (24 GB in bf16, all models at once: name --methods where memory is short); on a CPU a small
transformer, not compiled. Peak memory is PyTorch's, of one step with that model alone on the GPU.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence

import torch

from lab.comfyui import import_comfyui
from lab.pack import load_pack

from .flux_model import Size, compiled, load_flux, quantized, size_for, step_seconds, title
from .measuring import MIB, default_device, hardware, peak_bytes, table, use_threads, write

PLAIN = "bf16"
METHODS = (
    "fp8-dynamic",
    "fp8-weight-only",
    "int8",
    "int8-dynamic",
    "int4",
    "layerwise",
)
# Least speed beside bf16 (compiled beside compiled), and most peak memory: on an H100 or H200.
EAGER_BARS = {
    "fp8-dynamic": 1.25,
    "int8-dynamic": 1.15,
    "fp8-weight-only": 0.92,
    "int8": 0.92,
    "int4": 0.85,
    "layerwise": 0.92,
}
COMPILED_BARS = {"fp8-dynamic": 1.40}
MEMORY_BARS = {
    "fp8-dynamic": 0.6,
    "fp8-weight-only": 0.6,
    "int8": 0.6,
    "int8-dynamic": 0.6,
    "int4": 0.4,
}


@torch.inference_mode()
def measure(
    methods: Sequence[str], device: torch.device, repeats: int, with_compiled: bool
) -> dict:
    """Seconds of a step, eager and compiled, and peak bytes, by method and for ``PLAIN``."""
    size = size_for(device)
    plain = load_flux(size, device)
    models = {PLAIN: plain, **{method: quantized(plain, method) for method in methods}}
    seconds = {"eager": steps_in_turn(models, size, device, repeats)}
    peaks = {name: peak_of(model, size, device) for name, model in models.items()}
    if with_compiled:
        graphs = {name: compiled(model) for name, model in models.items()}
        seconds["compiled"] = steps_in_turn(graphs, size, device, repeats)
    return {
        "hidden": size.hidden,
        "blocks": [size.double, size.single],
        "model bytes": {name: model.model_size() for name, model in models.items()},
        "seconds": seconds,
        "peak bytes": peaks,
    }


def steps_in_turn(
    models: Mapping, size: Size, device: torch.device, repeats: int
) -> dict[str, float]:
    """Medians; a first round, which loads and compiles, does not count."""
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(repeats + 1):
        for name, model in models.items():
            times[name].append(step_seconds(model, size, device))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def peak_of(model, size: Size, device: torch.device) -> int | None:
    import comfy.model_management

    comfy.model_management.unload_all_models()
    return peak_bytes(lambda: step_seconds(model, size, device), device)


def speeds(results: Mapping, way: str) -> dict[str, float]:
    """Times as fast as bf16."""
    seconds = results["seconds"].get(way, {})
    return {name: seconds[PLAIN] / value for name, value in seconds.items()}


def memory_shares(results: Mapping) -> dict[str, float]:
    """Peak bytes beside bf16's; of a GPU alone."""
    peaks = results["peak bytes"]
    return {name: peak / peaks[PLAIN] for name, peak in peaks.items() if peak is not None}


def markdown(results: dict) -> str:
    eager, fast = speeds(results, "eager"), speeds(results, "compiled")
    shares = memory_shares(results)
    rows = [
        [
            name,
            results["seconds"]["eager"][name],
            eager[name],
            results["seconds"].get("compiled", {}).get(name),
            fast.get(name),
            round(results["model bytes"][name] / MIB),
            shares.get(name),
        ]
        for name in eager
    ]
    head = (
        "method",
        "step s",
        "times as fast",
        "compiled s",
        "times as fast as compiled bf16",
        "model MiB",
        "peak memory / bf16's",
    )
    return "\n".join([title(results), "", *table(head, rows), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    device = default_device()
    use_threads(device)
    import_comfyui()
    load_pack()
    with_compiled = device.type != "cpu" and not options.no_compile
    results = {
        "hardware": hardware(device),
        "repeats": options.repeats,
        **measure(options.methods, device, options.repeats, with_compiled),
    }
    write("step", results, markdown(results), device)


if __name__ == "__main__":
    main()
