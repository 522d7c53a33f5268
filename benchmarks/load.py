"""Loading a saved quantized file against loading bf16 and quantizing it again.

    python -m benchmarks.load [--hidden 1024] [--repeats 5]

Run with GRAPHQUANT_COMFYUI naming a ComfyUI folder (``python3 dev.py setup`` fetches one). Both
ways end with a MODEL ready to sample, on a Flux-architecture checkpoint of seeded weights. Times
are medians of runs taken in turn from a warm page cache, so that a busy machine weighs on all
alike; read their ratios. "save" is one run: write, sync, read back and compare.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from lab.comfyui import comfyui_version, import_comfyui
from lab.pack import load_pack
from lab.tiny_models import FLUX, tiny_flux

from .measuring import MIB, RESULTS, in_turn, machine

# method, granularity
METHODS = (
    ("fp8-weight-only", "per-tensor"),
    ("fp8-weight-only", "per-row"),
    ("int8", "per-row"),
    ("int4", "per-row"),
)
DEPTHS = {"depth": 3, "singles": 6}
TARGET = 2.0


def quantize(file: Path, method: str, granularity: str):
    """Load the plain file and quantize it."""
    import comfy.sd

    from graphquant.nodes.quantize_model import GQQuantizeModel

    plain = comfy.sd.load_diffusion_model(str(file))
    return GQQuantizeModel.execute(plain, method, granularity=granularity)[0]


def measure(plain: Path, method: str, granularity: str, repeats: int) -> dict:
    """Seconds and bytes of one method."""
    from graphquant.nodes.bridge.loading.load_model import load_quantized_model
    from graphquant.nodes.bridge.saving.save_model import save_quantized_model

    saved = plain.with_name(f"{method}-{granularity}.safetensors")
    model = quantize(plain, method, granularity)
    started = time.perf_counter()
    report = save_quantized_model(model, saved)
    seconds = {"save": time.perf_counter() - started}
    del model
    cases = {
        "quantize": partial(quantize, plain, method, granularity),
        "load": partial(load_quantized_model, saved),
    }
    seconds |= in_turn(cases, repeats)
    return {
        "method": method,
        "granularity": granularity,
        "format": "stock" if "format stock" in report.facts[0] else "graphquant",
        "file bytes": saved.stat().st_size,
        "seconds": seconds,
        "speedup": seconds["quantize"] / seconds["load"],
    }


def markdown(results: dict) -> str:
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = [
        f"Flux architecture, hidden size {results['hidden']}, bf16 file of "
        f"{results['plain bytes'] / MIB:.0f} MiB; {about}.",
        "",
        "| method | file | MiB | bf16 + quantize s | load s | times as fast | save s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["methods"]:
        seconds = row["seconds"]
        lines.append(
            f"| {row['method']} {row['granularity']} | {row['format']} "
            f"| {row['file bytes'] / MIB:.0f} | {seconds['quantize']:.2f} | {seconds['load']:.2f} "
            f"| {row['speedup']:.1f} | {seconds['save']:.2f} |"
        )
    slowest = min(row["speedup"] for row in results["methods"])
    met = "met" if slowest >= TARGET else "missed"
    lines += ["", f"Target: at least {TARGET:.0f} times as fast; least {slowest:.1f}, {met}."]
    return "\n".join(lines) + "\n"


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hidden", type=int, default=1024, help="a multiple of 128")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(machine()["threads"])
    import_comfyui()
    load_pack()
    with tempfile.TemporaryDirectory() as folder:
        plain = tiny_flux(Path(folder) / FLUX.file, hidden=options.hidden, **DEPTHS)
        results = {
            "machine": {**machine(), "comfyui": ".".join(map(str, comfyui_version()))},
            "hidden": options.hidden,
            "repeats": options.repeats,
            "plain bytes": plain.stat().st_size,
            "methods": [measure(plain, *method, options.repeats) for method in METHODS],
        }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "load.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / "load.md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
