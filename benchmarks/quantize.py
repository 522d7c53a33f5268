"""Quantizing itself: seconds, bf16 read a second and peak memory, by method, on CPU and GPU.

    python -m benchmarks.quantize [--width 3072] [--layers 4] [--repeats 5]

The layers of FLUX.1's MLP, width x 4 width and back, held by the CPU; on a GPU each is moved there,
quantized and moved back, as the node does it. "read + write" is what a copy of as many bytes takes:
bf16 in, codes and scales out. benchmarks.streaming has the peak memory of a CPU.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch

from lab.pack import load_pack

from .measuring import (
    about,
    default_device,
    hardware,
    in_turn,
    peak_bytes,
    table,
    use_threads,
    write,
)

METHODS = ("fp8-weight-only", "int8", "int4")


def measure(width: int, layers: int, device: torch.device, repeats: int) -> dict:
    from graphquant.quant_core.applying.transfer import Transfer
    from graphquant.quant_core.methods import METHODS as ALL

    weights = [
        torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02)
        for shape in ((4 * width, width), (width, 4 * width)) * (layers // 2)
    ]
    transfer = Transfer()
    back = partial(transfer.to, device="cpu")
    rows = {}
    for method in METHODS:
        formats = [ALL[method].choose(tuple(w.shape), "per-row").format for w in weights]

        def run(formats=formats) -> list:
            return [
                fmt.quantize(transfer.to(weight, device)).map(back)
                for fmt, weight in zip(formats, weights, strict=True)
            ]

        read = sum(weight.nbytes for weight in weights)
        written = sum(result.nbytes for result in run())
        rows[method] = {"run": run, "read": read, "written": written}
    # Not zeros: the system maps those to one page, which is read from the cache.
    source = torch.ones(rows[METHODS[0]]["read"], dtype=torch.uint8)
    floor = {
        f"floor {method}": partial(touch, source, row["written"]) for method, row in rows.items()
    }
    cases = {method: row["run"] for method, row in rows.items()}
    seconds = in_turn({**cases, **floor}, repeats, device)
    return {
        method: {
            "seconds": seconds[method],
            "gigabytes a second": row["read"] / seconds[method] / 1e9,
            "read + write seconds": seconds[f"floor {method}"],
            "peak GPU bytes": peak_bytes(row["run"], device),
        }
        for method, row in rows.items()
    }


def touch(source: torch.Tensor, written: int) -> torch.Tensor:
    """Read ``source``, write ``written`` new bytes: what no quantizer can go below."""
    target = torch.empty(written, dtype=torch.uint8)
    target.copy_(source[:written])
    source[written // 8 * 8 :].view(torch.int64).amax()
    return target


def markdown(results: dict) -> str:
    rows = [
        [
            method,
            row["seconds"],
            row["gigabytes a second"],
            row["read + write seconds"],
            row["seconds"] / row["read + write seconds"],
            row["peak GPU bytes"],
        ]
        for method, row in results["rows"].items()
    ]
    head = ("method", "s", "GB/s of bf16", "read + write s", "times read + write", "peak GPU bytes")
    width = results["width"]
    text = (
        f"{results['layers']} Linear layers, {width} x {4 * width} and back; medians of "
        f"{results['repeats']}. {about(results['hardware'])}."
    )
    return "\n".join([text, "", *table(head, rows), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=int, help="default: 3072; on a CPU 1536")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = default_device()
    use_threads(device)
    load_pack()
    width = options.width or (3072 if device.type == "cuda" else 1536)
    results = {
        "hardware": hardware(device),
        "width": width,
        "layers": options.layers,
        "repeats": options.repeats,
        "rows": measure(width, options.layers, device, options.repeats),
    }
    write("quantize", results, markdown(results), device)


if __name__ == "__main__":
    main()
