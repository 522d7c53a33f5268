"""One sampling step of a FLUX.1-sized transformer in ComfyUI, by method: seconds and peak memory.

    python -m benchmarks.step [--methods fp8-dynamic int8 ...] [--compile fp8-dynamic ...]

Run with GRAPHQUANT_COMFYUI naming a ComfyUI folder (``python3 dev.py setup`` fetches one). Random
weights; each model takes turns with bf16's, and speeds are ratios to that. On a GPU the full size:
24 GB in bf16 and one more model beside it, the others wait in the computer's memory (90 GB); on a
CPU a small transformer, not compiled. Peak memory is what a load and one step add to what is there.
Eager comes first, and results are written after every model: a run that is cut short is not lost.
"""

from __future__ import annotations

import argparse
import gc
import statistics
from collections.abc import Callable, Mapping, Sequence

import torch

from lab.comfyui import import_comfyui
from lab.pack import load_pack

from .flux_model import Size, compiled, load_flux, quantized, size_for, step_seconds, title
from .measuring import (
    MIB,
    added_bytes,
    default_device,
    hardware,
    named,
    table,
    use_threads,
    write,
)

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
SPEED_BARS = {"eager": EAGER_BARS, "compiled": COMPILED_BARS}
MEMORY_BARS = {
    "fp8-dynamic": 0.6,
    "fp8-weight-only": 0.6,
    "int8": 0.6,
    "int8-dynamic": 0.6,
    "int4": 0.4,
}


@torch.inference_mode()
def measure(
    methods: Sequence[str],
    device: torch.device,
    repeats: int,
    with_compiled: Sequence[str],
    on_model: Callable[[dict], None] = lambda results: None,
) -> dict:
    """Seconds of a step beside bf16's, eager and of ``with_compiled`` compiled, and peak bytes, by
    method and for ``PLAIN``. on_model: called with what there is after each model."""
    size = size_for(device)
    plain = load_flux(size, device)
    models = {method: quantized(plain, method) for method in methods}
    results = {
        "hidden": size.hidden,
        "blocks": [size.double, size.single],
        "model bytes": {
            name: model.model_size() for name, model in [(PLAIN, plain), *models.items()]
        },
        "peak bytes": {PLAIN: peak_of(plain, size, device)},
        "seconds": {},
        "bf16 seconds": {},
    }
    for method in methods:
        results["peak bytes"][method] = peak_of(models[method], size, device)
        note(results, "eager", method, steps_beside(plain, models[method], size, device, repeats))
        on_model(results)
        if method not in with_compiled:
            del models[method]
            gc.collect()
    graph = compiled(plain) if with_compiled else None
    for method in with_compiled:
        pair = (graph, compiled(models[method]))
        note(results, "compiled", method, steps_beside(*pair, size, device, repeats))
        on_model(results)
    return results


def note(results: dict, way: str, method: str, seconds: tuple[float, float]) -> None:
    """seconds: bf16's and the method's."""
    results["bf16 seconds"].setdefault(way, {})[method] = seconds[0]
    results["seconds"].setdefault(way, {})[method] = seconds[1]


def steps_beside(
    plain, model, size: Size, device: torch.device, repeats: int
) -> tuple[float, float]:
    seconds = steps_in_turn({"plain": plain, "other": model}, size, device, repeats)
    return seconds["plain"], seconds["other"]


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
    """Of a model that is not on the GPU yet."""
    return added_bytes(lambda: step_seconds(model, size, device), device)


def speeds(results: Mapping, way: str) -> dict[str, float]:
    """Times as fast as bf16 in turn with it."""
    plain = results["bf16 seconds"].get(way, {})
    return {name: plain[name] / value for name, value in results["seconds"].get(way, {}).items()}


def memory_shares(results: Mapping) -> dict[str, float]:
    """Peak bytes beside bf16's; of a GPU alone."""
    peaks = results["peak bytes"]
    return {name: peak / peaks[PLAIN] for name, peak in peaks.items() if peak is not None}


def markdown(results: dict) -> str:
    eager, fast = speeds(results, "eager"), speeds(results, "compiled")
    shares = memory_shares(results)
    seconds = {PLAIN: median_of_bf16(results)} | {
        name: {way: values.get(name) for way, values in results["seconds"].items()}
        for name in eager
    }
    rows = [
        [
            name,
            each.get("eager"),
            eager.get(name, 1.0),
            each.get("compiled"),
            fast.get(name, 1.0 if name == PLAIN and fast else None),
            round(results["model bytes"][name] / MIB),
            shares.get(name),
        ]
        for name, each in seconds.items()
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


def median_of_bf16(results: Mapping) -> dict[str, float]:
    return {way: statistics.median(all_.values()) for way, all_ in results["bf16 seconds"].items()}


def missed_bars(results: Mapping) -> list[str]:
    """The bars that ``results`` of an H100 or H200 miss, in words."""
    bars = [
        *(
            (f"{name} {way}", bar, speeds(results, way).get(name), 1)
            for way, bars in SPEED_BARS.items()
            for name, bar in bars.items()
        ),
        *(
            (f"{name} memory", bar, memory_shares(results).get(name), -1)
            for name, bar in MEMORY_BARS.items()
        ),
    ]
    return [
        f"{what}: {value:.2f}, bar {bar:.2f}"
        for what, bar, value, sign in bars
        if value is not None and sign * value < sign * bar
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--compile",
        nargs="*",
        choices=METHODS,
        help="the methods to compile as well; default: all on a GPU, none on a CPU",
    )
    parser.add_argument(
        "--dynamic-vram", action="store_true", help="as ComfyUI starts on NVIDIA, in a table apart"
    )
    options = parser.parse_args()
    device = default_device()
    use_threads(device)
    import_comfyui()
    name = named("step", options.dynamic_vram)
    load_pack()
    default = options.methods if device.type != "cpu" else ()
    with_compiled = default if options.compile is None else options.compile
    about = {"hardware": hardware(device), "repeats": options.repeats}

    def write_results(results: dict) -> None:
        results = {**about, **results, "missed bars": missed_bars(results)}
        write(name, results, markdown(results), device)

    measure(options.methods, device, options.repeats, with_compiled, write_results)


if __name__ == "__main__":
    main()
