"""Quantize VAE: how far an INT8 decode is from the plain one, what it saves, what it costs.

    python -m benchmarks.vae_decode [--size 16] [--repeats 5]
    python -m benchmarks.vae_decode --rotated [--repeats 5]

Run with GRAPHQUANT_COMFYUI naming a ComfyUI folder (``python3 dev.py setup`` fetches one). Seeded
Gaussian weights in ComfyUI's own classes at their real widths, and one small VAE that was trained.
FP8 is what Quantize VAE refuses, measured beside INT8. Times are medians of decodes taken in turn,
so that a busy machine weighs on both alike; read their ratio. ``--rotated`` measures the
transformer decoder of MiniMax H3 alone, at its real width, two blocks of its 36, on one thread.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from lab.comfyui import comfyui_version, import_comfyui
from lab.miniature import VAE as TRAINED
from lab.miniature.pictures import PAPER, digits, draw
from lab.pack import load_pack
from lab.tiny_vaes import FLUX, MINIMAX, SD, WAN, sizes_of_minimax, weights

from .measuring import MIB, RESULTS, in_turn, machine

if TYPE_CHECKING:
    from comfy.sd import VAE

PICTURE, VIDEO = (128, 128), (21, 60, 104)
"""Latents of 1024 x 1024 pixels, and of 81 frames of 832 x 480."""


def cases(size: int) -> Iterator[tuple[str, VAE, torch.Tensor, tuple[int, ...]]]:
    """Name, VAE, latents to decode, and the shape of large ones to ask ComfyUI's estimate of."""
    import comfy.sd
    import comfy.utils

    for name, tiny, latent, large in (
        ("Stable Diffusion", replace(SD, width=128), (1, 4, size, size), PICTURE),
        ("FLUX.1", replace(FLUX, width=128), (1, 16, size, size), PICTURE),
        ("Wan 2.1", replace(WAN, width=96), (1, 16, 2, size // 2, size // 2), VIDEO),
    ):
        tiny = replace(tiny, latent=latent)
        yield name, comfy.sd.VAE(sd=weights(tiny)), tiny.latents(), (*latent[:2], *large)
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(TRAINED)))
    strokes, _ = digits(held_out=True)
    latents = vae.encode(draw(strokes[:16], 64, PAPER).movedim(1, -1))
    yield "TAESD, trained on digits", vae, latents, (1, 16, *PICTURE)


@torch.inference_mode()
def measure(vae: VAE, latents: torch.Tensor, large: tuple[int, ...], repeats: int) -> dict:
    """One row: both formats against the plain decode."""
    from graphquant.nodes.bridge.model.vae import quantize_vae
    from graphquant.quant_core import plan_component
    from graphquant.quant_core.formats import Float8

    plan = plan_component(vae.first_stage_model, "int8", "vae")
    as_fp8 = tuple(
        replace(layer, format=Float8()) if layer.format else layer for layer in plan.layers
    )
    int8, report = quantize_vae(vae, plan, device=None)
    fp8, _ = quantize_vae(vae, replace(plan, layers=as_fp8), device=None)
    plain = vae.decode(latents)
    elements = sum(math.prod(layer.shape) for layer in plan.quantized)
    seconds = in_turn(
        {name: partial(v.decode, latents) for name, v in (("plain", vae), ("int8", int8))}, repeats
    )
    return {
        "pictures": list(plain.shape),
        "standard deviation": plain.std().item(),
        "clipped": ((plain <= 0) | (plain >= 1)).float().mean().item(),
        "layers": report.quantized_layers,
        "bytes in 16 bits": 2 * elements,
        "bytes in int8": report.quantized_bytes_after,
        "decode estimate bytes": vae.memory_used_decode(large, torch.bfloat16),
        "int8": quality(int8.decode(latents), plain),
        "fp8": quality(fp8.decode(latents), plain),
        "seconds": seconds,
    }


@torch.inference_mode()
def measure_rotated(repeats: int) -> dict:
    """By method, a decode of 64 latents a frame: seconds, and the error's distance in dB."""
    import comfy.sd

    from graphquant.nodes.quantize_vae import GQQuantizeVAE

    latents = replace(MINIMAX, latent=(1, 24, 2, 16, 16)).latents()
    with sizes_of_minimax(blocks=2, heads=32):
        plain = comfy.sd.VAE(sd=weights(MINIMAX))
        vaes = {"plain": plain} | {
            method: GQQuantizeVAE.execute(plain, method)[0] for method in ("int8", "int8-convrot")
        }
        pictures = {name: vae.decode(latents) for name, vae in vaes.items()}
        seconds = in_turn({n: partial(v.decode, latents) for n, v in vaes.items()}, repeats)
    return {
        name: {
            "seconds": seconds[name],
            **({} if name == "plain" else quality(pictures[name], pictures["plain"])),
            "bytes": vae.model_size(),
        }
        for name, vae in vaes.items()
    }


def rotated_markdown(results: dict) -> str:
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    rows, lines = results["rows"], []
    for name, row in rows.items():
        ratio = row["seconds"] / rows["plain"]["seconds"]
        psnr = f"{row['psnr']:.1f}" if "psnr" in row else "-"
        lines.append(f"| {name} | {ratio:.2f} | {psnr} | {row['bytes'] / MIB:.0f} |")
    return "\n".join(
        [
            "`python -m benchmarks.vae_decode --rotated`: MiniMax H3's decoder, 2 of its 36 "
            f"blocks, 256 x 256 pixels; median of {results['repeats']} decodes in turn; {about}.",
            "",
            "| decoder half | time / plain | PSNR dB | MiB |",
            "|---|---:|---:|---:|",
            *lines,
            "",
        ]
    )


def quality(result: torch.Tensor, reference: torch.Tensor) -> dict[str, float]:
    """dB, of pictures in 0 to 1. psnr: against the full range; sqnr: against their variance."""
    error = (result - reference).double().square().mean().item()
    variance = reference.double().var(correction=0).item()
    return {"psnr": -10 * math.log10(error), "sqnr": 10 * math.log10(variance / error)}


def markdown(results: dict) -> str:
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = [
        f"Decoder half in INT8, against the same VAE's own decode; median of {results['repeats']} "
        f"decodes; {about}.",
        "",
        "| VAE | pictures, std (clipped) | PSNR int8 (fp8) dB | SQNR int8 (fp8) dB | weights MiB, "
        "16 bits -> int8 | a large decode MiB, ComfyUI's estimate | time int8 / plain |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in results["rows"].items():
        *count, height, width, _ = row["pictures"]
        shape = f"{math.prod(count)} of {height} x {width}"
        before, after = row["bytes in 16 bits"], row["bytes in int8"]
        cells = (
            name,
            f"{shape}, {row['standard deviation']:.2f} ({row['clipped']:.1%})",
            *(f"{row['int8'][key]:.1f} ({row['fp8'][key]:.1f})" for key in ("psnr", "sqnr")),
            f"{before / MIB:.1f} -> {after / MIB:.1f} ({after / before:.3f})",
            f"{row['decode estimate bytes'] / MIB:.0f}",
            f"{row['seconds']['int8'] / row['seconds']['plain']:.2f} "
            f"({row['seconds']['plain']:.2f} s plain)",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "A large decode: 1024 x 1024 pixels, or 81 frames of 832 x 480, in bfloat16."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=16, help="latent pixels a side; video: half")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rotated", action="store_true", help="MiniMax H3's decoder alone")
    options = parser.parse_args()
    torch.set_num_threads(machine()["threads"])
    import_comfyui()
    load_pack()
    if options.rotated:
        torch.set_num_threads(1)
        about = {**machine(), "threads": 1, "comfyui": ".".join(map(str, comfyui_version()))}
        rows = measure_rotated(options.repeats)
        results = {"machine": about, "repeats": options.repeats, "rows": rows}
        (RESULTS / "vae_rotated.json").write_text(json.dumps(results, indent=2) + "\n")
        (RESULTS / "vae_rotated.md").write_text(rotated_markdown(results))
        print(rotated_markdown(results))
        return
    results = {
        "machine": {**machine(), "comfyui": ".".join(map(str, comfyui_version()))},
        "repeats": options.repeats,
        "rows": {name: measure(*case, options.repeats) for name, *case in cases(options.size)},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "vae_decode.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / "vae_decode.md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
