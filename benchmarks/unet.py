"""A sampling step of a UNet with its convolutions kept and quantized: time, error and size.

    python -m benchmarks.unet [--side 32] [--repeats 9] [--threads 1]

Run with GRAPHQUANT_COMFYUI naming a ComfyUI folder (``python3 dev.py setup`` fetches one). Random
weights in ComfyUI's own class, at SD 1.5's widths. Times are medians of calls taken in turn, so
that a busy machine weighs on all alike; read their ratios to the unquantized model's.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lab.comfyui import comfyui_version, import_comfyui
from lab.pack import load_pack
from lab.sampling import relative_l2, sample
from lab.tiny_models import SD15, tiny_sd15

from .measuring import MIB, RESULTS, in_turn, machine

PLAIN = "unquantized"
CASES = tuple((m, c) for m in ("int8", "fp8-weight-only") for c in ("keep", "quantize"))
UNETS = {"320 and 640 channels, as SD 1.5": (1, 2), "320 channels": (1, 1)}


@torch.inference_mode()
def measure(widths: tuple[int, int], side: int, repeats: int) -> dict:
    """By case, what a step takes in seconds, errs by and weighs in bytes."""
    import comfy.sd

    from graphquant.nodes.quantize_model import GQQuantizeModel

    tiny = replace(SD15, latent=(4, side, side))
    with TemporaryDirectory() as folder:
        path = tiny_sd15(Path(folder) / SD15.file, widths=widths)
        plain = comfy.sd.load_diffusion_model(str(path))
    models = {PLAIN: plain} | {
        f"{method}, convolutions {choice}": GQQuantizeModel.execute(
            model=plain, method=method, convolutions=choice
        )[0]
        for method, choice in CASES
    }
    latents = {name: sample(model, tiny, steps=1) for name, model in models.items()}
    calls = {name: partial(step, model, tiny) for name, model in models.items()}
    seconds = in_turn(calls, repeats)
    return {
        name: {
            "seconds": seconds[name],
            "error": relative_l2(latents[name], latents[PLAIN]),
            "bytes": model.model_size(),
        }
        for name, model in models.items()
    }


def step(model, tiny) -> torch.Tensor:
    """One call of the diffusion model, which stays loaded."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([model])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, *tiny.latent, generator=generator)
    context = torch.randn(1, tiny.context_length, tiny.context_width, generator=generator)
    return model.model.diffusion_model(x, torch.tensor([500.0]), context=context)


def markdown(results: dict) -> str:
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = [
        "# Convolutions of UNets",
        "",
        f"`python -m benchmarks.unet`: one step at {results['side']} x {results['side']} latent "
        f"pixels, median of {results['repeats']} in turn; {about}. Error: relative L2 of the "
        "latent after a step.",
        "",
        "| UNet | model | time / unquantized | error | MiB |",
        "|---|---|---:|---:|---:|",
    ]
    for unet, rows in results["unets"].items():
        for name, row in rows.items():
            ratio = row["seconds"] / rows[PLAIN]["seconds"]
            lines.append(
                f"| {unet} | {name} | {ratio:.2f} | {row['error']:.4f} | {row['bytes'] / MIB:.0f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=32, help="latent pixels a side")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import_comfyui()
    load_pack()
    torch.set_num_threads(options.threads)
    about = {**machine(), "threads": options.threads}
    results = {
        "machine": {**about, "comfyui": ".".join(map(str, comfyui_version()))},
        "side": options.side,
        "repeats": options.repeats,
        "unets": {n: measure(w, options.side, options.repeats) for n, w in UNETS.items()},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "unet.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / "unet.md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
