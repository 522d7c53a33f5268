"""One Linear layer of each large model: every method beside bf16, torchao and stock ComfyUI.

    python -m benchmarks.layer [--models FLUX.1 Z-Image] [--every-format] [--no-compile]

Run with GRAPHQUANT_COMFYUI naming a ComfyUI folder (``python3 dev.py setup`` fetches one). Speeds
are ratios to the bf16 layer of the same run, eager or compiled: 1.2 is 1.2 times as fast. On a CPU
the layers are a quarter as wide and the tokens an eighth, so that it runs anywhere.
"""

from __future__ import annotations

import argparse
import logging
from functools import partial

import torch
from torch import nn

from lab.comfyui import import_comfyui
from lab.pack import load_pack

from .layer_cases import PLAIN, layers
from .measuring import about, default_device, hardware, in_turn, table, use_threads, write
from .shapes import GEMMS, SMALL_M, Gemm

_SHORTEST = 0.02  # seconds of a sample


def gemms(device: torch.device, models: list[str] | None) -> list[Gemm]:
    chosen = [gemm for gemm in (*GEMMS, SMALL_M) if not models or gemm.model in models]
    if device.type == "cpu":
        smaller = [gemm.smaller(8, 4) if gemm.tokens > 1 else gemm for gemm in chosen]
        # One of a model: its largest.
        chosen = [
            max((g for g in smaller if g.model == name), key=lambda g: g.flops)
            for name in dict.fromkeys(g.model for g in smaller)
        ]
    return chosen


@torch.inference_mode()
def measure(
    gemm: Gemm, device: torch.device, repeats: int, compiled: bool, every_format: bool = False
) -> dict:
    """Seconds of each way to compute ``gemm``, eager and where asked for compiled."""
    x = torch.randn(1, gemm.tokens, gemm.inputs, dtype=torch.bfloat16, device=device)
    problems: dict[str, str] = {}
    cases = {}
    for name, layer in layers(gemm.inputs, gemm.outputs, device, every_format):
        try:
            if isinstance(layer, Exception):
                raise layer
            layer(x)
        except Exception as problem:  # what a library does not run here is part of the result
            problems[name] = str(problem).partition("\n")[0][:120]
            continue
        cases[name] = layer
    seconds = {"eager": timed(cases, x, repeats, device)}
    if compiled:
        torch._dynamo.reset()
        graphs = {name: torch.compile(layer) for name, layer in cases.items()}
        seconds["compiled"] = timed(graphs, x, repeats, device)
    return {
        "model": gemm.model,
        "layer": gemm.layer,
        "shape": [gemm.tokens, gemm.inputs, gemm.outputs],
        "seconds": seconds,
        "not run": problems,
    }


def timed(
    cases: dict[str, nn.Module], x: torch.Tensor, repeats: int, device: torch.device
) -> dict[str, float]:
    calls = {name: partial(layer, x) for name, layer in cases.items()}
    return in_turn(calls, repeats, device, _SHORTEST)


def markdown(results: dict) -> str:
    lines = [
        "Times as fast as the bf16 layer of the same run, which is in milliseconds. "
        f"{about(results['hardware'])}.",
    ]
    for way in ("eager", "compiled"):
        rows = [row for row in results["rows"] if way in row["seconds"]]
        if not rows:
            continue
        names = list(dict.fromkeys(name for row in rows for name in row["seconds"][way]))
        head = ["layer", "M x K x N", *(f"{n} ms" if n == PLAIN else n for n in names)]
        lines += [
            "",
            f"## {way.capitalize()}",
            "",
            *table(
                head,
                [
                    [
                        f"{row['model']} {row['layer']}",
                        " x ".join(map(str, row["shape"])),
                        *(speed(row["seconds"][way], name) for name in names),
                    ]
                    for row in rows
                ],
            ),
        ]
    missing = {name: why for row in results["rows"] for name, why in row["not run"].items()}
    lines += ["", *(f"Not run here: {name}: {why}" for name, why in missing.items())]
    return "\n".join(lines).rstrip() + "\n"


def speed(seconds: dict[str, float], name: str) -> float | None:
    if name not in seconds:
        return None
    return seconds[PLAIN] * 1e3 if name == PLAIN else seconds[PLAIN] / seconds[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", help="default: all")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="compiled too (default: on a GPU; minutes for each model)",
    )
    parser.add_argument(
        "--every-format",
        action="store_true",
        help="all methods beside bf16, in a table of their own, without torchao and stock",
    )
    options = parser.parse_args()
    device = default_device()
    use_threads(device)
    import_comfyui()
    load_pack()
    # On a CPU comfy-kitchen reports at every call that it dequantizes.
    logging.getLogger("comfy_kitchen").setLevel(logging.ERROR)
    compiled = device.type != "cpu" if options.compile is None else options.compile
    name = "layer_formats" if options.every_format else "layer"
    results = {"hardware": hardware(device), "repeats": options.repeats, "rows": []}
    for gemm in gemms(device, options.models):
        row = measure(gemm, device, options.repeats, compiled, options.every_format)
        results["rows"].append(row)
        write(name, results, markdown(results), device)  # a run that is cut short is not lost


if __name__ == "__main__":
    main()
