"""How much memory and time quantizing takes: peak beyond the model itself, and bf16 read a second.

    python -m benchmarks.streaming [--layers 24] [--width 2048] [--repeats 3]

Every case runs in a process of its own, on a model of --layers Linear layers in bfloat16, from
width x width to 2 width x 2 width. Peak memory is the kernel's own high-water mark of the resident
set (Linux), reset when the model stands and the method is warm. It may reach the quantized result
and two of the largest layers: nothing is replaced before the last layer is quantized. torchao's
``quantize_``, which replaces layer by layer, is measured beside it. CPU seconds count all threads.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence

import torch
from torch import nn

from lab.pack import ROOT, load_pack
from lab.peak_memory import peak_memory

from .measuring import MIB, RESULTS, machine

# Multiples of half the width: (out_features, in_features), repeated until there are enough layers.
SHAPES = ((2, 2), (3, 2), (3, 3), (4, 3), (4, 4), (2, 4))
OURS = ("fp8-weight-only", "int8", "int8-dynamic", "int4")
TORCHAO = ("torchao fp8", "torchao int8")


def build(layers: int, width: int) -> nn.Sequential:
    """Gaussian bfloat16 weights, without a float32 copy on the way."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential()
    for i in range(layers):
        rows, columns = (width * size // 2 for size in SHAPES[i % len(SHAPES)])
        layer = nn.Linear(columns, rows, bias=False, dtype=torch.bfloat16, device="meta")
        weight = torch.empty(rows, columns, dtype=torch.bfloat16)
        layer.weight = nn.Parameter(weight.normal_(0, 0.02, generator=generator), False)
        model.append(layer)
    return model


def quantize(case: str, model: nn.Module) -> None:
    if case in OURS:
        from graphquant.quant_core import quantize_component

        quantize_component(model, case)
        return
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    config = Float8WeightOnlyConfig if case == "torchao fp8" else Int8WeightOnlyConfig
    quantize_(model, config(set_inductor_config=False))


def measure(case: str, layers: int, width: int) -> dict:
    """Quantize one model in this process; bytes and seconds."""
    from graphquant.quant_core.detect import module_bytes

    model = build(layers, width)
    before = module_bytes(model)
    largest = max(map(module_bytes, model))
    with peak_memory() as peak:
        started, worked = time.perf_counter(), time.process_time()
        quantize(case, model)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    return {
        "model_bytes": before,
        "result_bytes": module_bytes(model),
        "largest_layer_bytes": largest,
        "extra_peak_bytes": peak.taken,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
    }


def measure_case(case: str, layers: int, width: int, repeats: int) -> dict:
    """``measure`` when warm; of several runs the highest peak and the median time."""
    quantize(case, build(2, 256))
    runs = [measure(case, layers, width) for _ in range(repeats)]
    row = {"case": case, **runs[0]}
    row["extra_peak_bytes"] = max(run["extra_peak_bytes"] for run in runs)
    for key in ("seconds", "cpu_seconds"):
        row[key] = sorted(run[key] for run in runs)[repeats // 2]
    row["bound_bytes"] = row["result_bytes"] + 2 * row["largest_layer_bytes"]
    row["gigabytes_a_second"] = row["model_bytes"] / row["seconds"] / 1e9
    return row


def measure_in_child(
    cases: Sequence[str], layers: int = 24, width: int = 2048, repeats: int = 3
) -> list[dict]:
    """``measure_case`` of each of ``cases`` in a fresh process, whose memory holds nothing else."""
    options = {"layers": layers, "width": width, "repeats": repeats}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "benchmarks.streaming", *arguments, "--cases", *cases]
    # glibc would keep what one case has freed for the next, whose peak then missed it.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    child = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(child.stdout)


def markdown(results: dict) -> str:
    first = results["rows"][0]
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = [
        f"{results['layers']} Linear layers, {first['model_bytes'] / MIB:.0f} MiB in bfloat16, "
        f"the largest {first['largest_layer_bytes'] / MIB:.0f} MiB; median of "
        f"{results['repeats']} runs; {about}.",
        "",
        "| | result MiB | peak beyond the model MiB | result + 2 largest layers MiB | seconds "
        "| CPU seconds | GB/s of bf16 |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        sizes = (row[key] / MIB for key in ("result_bytes", "extra_peak_bytes", "bound_bytes"))
        cells = [f"{size:.0f}" for size in sizes]
        times = (row[key] for key in ("seconds", "cpu_seconds", "gigabytes_a_second"))
        cells += [f"{number:.2f}" for number in times]
        lines.append(f"| {row['case']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--cases", nargs="+", choices=OURS + TORCHAO, help="print the JSON of these alone"
    )
    options = vars(parser.parse_args())
    cases = options.pop("cases")
    if cases:
        torch.set_num_threads(min(2, os.cpu_count()))
        load_pack()
        print(json.dumps([measure_case(case, **options) for case in cases]))
        return
    rows = []
    for case in OURS + TORCHAO:
        print(f"measuring {case} ...", file=sys.stderr, flush=True)
        rows += measure_in_child([case], **options)
    results = {"machine": machine(), **options, "rows": rows}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "streaming.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / "streaming.md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
