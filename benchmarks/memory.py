"""Peak memory of "load, quantize, first step" in ComfyUI, against bf16 and against stock.

    python -m benchmarks.memory [--hidden 1024]

Run through ``python3 dev.py`` once, so that GRAPHQUANT_COMFYUI names a ComfyUI. Each case runs in a
process of its own, on a Flux-architecture checkpoint of seeded weights; the figure is the kernel's
high-water mark of the resident set from before the load to after one sampling step (Linux), and
with a CUDA GPU also PyTorch's peak of allocated GPU memory. "stock fp8_e4m3fn" is that weight_dtype
of Load Diffusion Model; "stock int8" is the file that Save Quantized Model writes, loaded by
ComfyUI's own loader.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from lab.comfyui import import_comfyui
from lab.pack import ROOT, load_pack
from lab.peak_memory import resident
from lab.sampling import sample
from lab.tiny_models import FLUX, tiny_flux

from .measuring import MIB, RESULTS, machine

QUANTIZED = ("fp8-weight-only", "int8", "int8-dynamic", "int4")
STOCK_FP8, STOCK_INT8 = "stock fp8_e4m3fn", "stock int8"
CASES = ("bf16", *QUANTIZED, STOCK_FP8, STOCK_INT8)
DEPTHS = {"depth": 3, "singles": 6}


def measure(case: str, file: str) -> dict:
    """Bytes of one case, in this process: the model loaded, and the peak on the way there."""
    import_comfyui()
    load_pack()
    import comfy.sd

    from graphquant.nodes.quantize_model import GQQuantizeModel

    torch.set_num_threads(2)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    base = resident("VmRSS")
    with torch.inference_mode():
        options = {"dtype": torch.float8_e4m3fn} if case == STOCK_FP8 else {}
        model = comfy.sd.load_diffusion_model(file, model_options=options)
        if case in QUANTIZED:
            model = GQQuantizeModel.execute(model=model, method=case)[0]
        sample(model, FLUX, steps=1)
    gc.collect()
    found = {
        "case": case,
        "model_bytes": model.model_size(),
        "peak_bytes": resident("VmHWM") - base,
        "held_bytes": resident("VmRSS") - base,
    }
    if torch.cuda.is_available():
        found["gpu_peak_bytes"] = torch.cuda.max_memory_allocated()
    return found


def save_int8(source: Path, target: Path) -> None:
    import_comfyui()
    load_pack()
    import comfy.sd

    from graphquant.nodes.bridge.saving.save_model import save_quantized_model
    from graphquant.nodes.quantize_model import GQQuantizeModel

    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model(str(source))
        model = GQQuantizeModel.execute(model=model, method="int8")[0]
        save_quantized_model(model, target, "stock")


def gpu_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def comfyui_version() -> str:
    import comfyui_version

    return comfyui_version.__version__


def in_child(case: str, file: Path) -> dict:
    command = [sys.executable, "-m", "benchmarks.memory", "--case", case, "--file", str(file)]
    child = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(child.stdout.splitlines()[-1])


def markdown(results: dict) -> str:
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    plain = results["rows"][0]["peak_bytes"]
    ours = (row["peak_bytes"] for row in results["rows"] if row["case"] in QUANTIZED)
    added = max(ours) / plain - 1
    lines = [
        f"Flux architecture, hidden size {results['hidden']}, file of "
        f"{results['file_mib']:.0f} MiB in bf16; on a CPU ComfyUI holds it as float32. {about}.",
        "",
        f"Quantizing adds {added:.1%} to the peak of the load, which is ComfyUI reading the file.",
        "Held: resident after the step, where nothing else holds the bf16 model.",
        "",
        "| | model MiB | peak MiB | peak beside bf16's | held MiB | GPU peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        sizes = f"{row['model_bytes'] / MIB:.0f} | {row['peak_bytes'] / MIB:.0f}"
        gpu = f"{row['gpu_peak_bytes'] / MIB:.0f}" if "gpu_peak_bytes" in row else "no GPU"
        held = f"{row['peak_bytes'] / plain:.2f} x | {row['held_bytes'] / MIB:.0f}"
        lines.append(f"| {row['case']} | {sizes} | {held} | {gpu} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--case", choices=CASES, help="print the JSON of this one alone")
    parser.add_argument("--file")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options.file)))
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = tiny_flux(Path(folder) / "flux.safetensors", hidden=options.hidden, **DEPTHS)
        saved = Path(folder) / "flux_int8.safetensors"
        save_int8(plain, saved)
        rows = [in_child(case, saved if case == STOCK_INT8 else plain) for case in CASES]
        size = plain.stat().st_size / MIB
    about = machine() | {"comfyui": comfyui_version(), "gpu": gpu_name()}
    results = {"machine": about, "hidden": options.hidden, "file_mib": size, "rows": rows}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "memory.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / "memory.md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
