"""Layerwise FP8 casting: what it rounds, what it saves, what it costs.

    python -m benchmarks.layerwise [--width 512] [--tokens 64 512] [--repeats 9]

Run with GRAPHQUANT_COMFYUI naming a ComfyUI folder (``python3 dev.py setup`` fetches one). Times
are medians of runs taken in turn, so that a busy machine weighs on all alike; read their ratios.
Where diffusers is installed its own layerwise casting is measured beside ours.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from lab.comfyui import comfyui_version, import_comfyui
from lab.pack import load_pack
from lab.sampling import relative_l2, sample
from lab.tiny_models import FLUX, tiny_flux

from .measuring import MIB, RESULTS, in_turn, machine

SIGMAS = (0.02, 0.002, 0.0005)
STORAGE = (torch.float8_e4m3fn, torch.float8_e5m2)


class Block(nn.Module):
    """A transformer block's Linear layers and norms, without the attention between them."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.proj(self.qkv(self.norm1(x)).chunk(3, -1)[2])
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


def weight_errors() -> list[dict]:
    """Relative L2 of a Linear's weight, scaled and plain, for Gaussian weights of each sigma."""
    from graphquant.quant_core import apply_layerwise_casting, remove_layerwise_casting

    rows = []
    for sigma in SIGMAS:
        layer = nn.Linear(2048, 2048, bias=False)
        layer.weight.data.normal_(0, sigma, generator=torch.Generator().manual_seed(0))
        for storage in STORAGE:
            row = {"sigma": sigma, "storage": str(storage).removeprefix("torch.")}
            for name, scaled in (("scaled", True), ("plain", False)):
                cast = copy.deepcopy(layer)
                apply_layerwise_casting(cast, storage, scaled=scaled)
                remove_layerwise_casting(cast)
                row[name] = relative_l2(cast.weight.detach(), layer.weight.detach())
            rows.append(row)
    return rows


def cast_module(module: nn.Module) -> nn.Module:
    from graphquant.quant_core import apply_layerwise_casting

    apply_layerwise_casting(module)
    return module


def cast_by_diffusers(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    from diffusers.hooks import apply_layerwise_casting

    apply_layerwise_casting(module, torch.float8_e4m3fn, dtype)
    return module


def footprints(width: int) -> dict:
    """Bytes of four blocks, and whether norms and biases kept every bit."""
    from graphquant.quant_core.detect import module_bytes

    model = nn.Sequential(*(Block(width) for _ in range(4)))
    cast = cast_module(copy.deepcopy(model))
    kept = [name for name, p in model.named_parameters() if p.dim() == 1]
    return {
        "float32": module_bytes(model),
        "bfloat16": module_bytes(copy.deepcopy(model).bfloat16()),
        "e4m3 in float32": module_bytes(cast),
        "e4m3 in bfloat16": module_bytes(cast_module(copy.deepcopy(model).bfloat16())),
        "norms and biases identical": all(
            torch.equal(cast.get_parameter(name), model.get_parameter(name)) for name in kept
        ),
    }


def hook_times(width: int, tokens: int, repeats: int) -> list[dict]:
    """Seconds of a forward through four blocks: plain, cast by us, cast by diffusers."""
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        model = nn.Sequential(*(Block(width) for _ in range(4))).to(dtype)
        x = torch.randn(1, tokens, width, dtype=dtype)
        cases = {"plain": model, "cast": cast_module(copy.deepcopy(model))}
        if find_spec("diffusers"):
            cases["diffusers"] = cast_by_diffusers(copy.deepcopy(model), dtype)
        with torch.inference_mode():
            seconds = in_turn({name: partial(case, x) for name, case in cases.items()}, repeats)
        rows.append({"dtype": str(dtype).removeprefix("torch."), "tokens": tokens, **seconds})
    return rows


@torch.inference_mode()
def in_comfyui(width: int, repeats: int) -> dict:
    """The node on a small Flux, 4 steps: bytes, latent error, seconds, and the input untouched."""
    import comfy.sd

    from graphquant.nodes.layerwise_fp8_cast import GQLayerwiseFP8Cast

    with tempfile.TemporaryDirectory() as folder:
        file = tiny_flux(Path(folder) / FLUX.file, hidden=width)
        load = {
            name: comfy.sd.load_diffusion_model(str(file), model_options={"dtype": dtype})
            for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
        }
        cast = {name: GQLayerwiseFP8Cast.execute(m, "float8_e4m3fn")[0] for name, m in load.items()}
        plain = GQLayerwiseFP8Cast.execute(load["float32"], "float8_e4m3fn", scaled=False)[0]
        reference = sample(load["float32"], FLUX)
        result = {
            "bytes": {
                **{name: model.model_size() for name, model in load.items()},
                **{f"e4m3 in {name}": model.model_size() for name, model in cast.items()},
            },
            "latent error": {
                "scaled": relative_l2(sample(cast["float32"], FLUX), reference),
                "plain cast": relative_l2(sample(plain, FLUX), reference),
            },
            "input unchanged": torch.equal(sample(load["float32"], FLUX), reference),
        }
        models = {"float32": load["float32"], "e4m3 in float32": cast["float32"]}
        seconds = in_turn({n: partial(sample, m, FLUX) for n, m in models.items()}, repeats)
        return {**result, "seconds": seconds}


def markdown(results: dict) -> str:
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = [f"Width {results['width']}; {about}.", ""]
    lines += ["| weights | storage | scaled | plain cast |", "|---|---|---|---|"]
    lines += [
        f"| sigma {row['sigma']} | {row['storage']} | {row['scaled']:.4f} | {row['plain']:.4f} |"
        for row in results["weight errors, relative L2"]
    ]
    sizes, comfy = dict(results["footprints"]), results["comfyui"]
    kept = sizes.pop("norms and biases identical")
    lines += ["", "| weights in | four blocks MiB | Flux in ComfyUI MiB |", "|---|---|---|"]
    lines += [
        f"| {name} | {size / MIB:.2f} | {comfy['bytes'][name] / MIB:.2f} |"
        for name, size in sizes.items()
    ]
    lines += ["", "| forward of four blocks | plain s | cast / plain | diffusers / plain |"]
    lines += ["|---|---|---|---|"]
    for row in results["hook times"]:
        ratios = [
            f"{row[name] / row['plain']:.2f}" if name in row else "not installed"
            for name in ("cast", "diffusers")
        ]
        case = f"{row['dtype']}, {row['tokens']} tokens"
        lines.append(f"| {case} | {row['plain']:.3f} | {' | '.join(ratios)} |")
    seconds, errors = comfy["seconds"], comfy["latent error"]
    ratio = seconds["e4m3 in float32"] / seconds["float32"]
    lines += [
        "",
        f"ComfyUI, 4 steps: {ratio:.2f} times the plain model's time; latent relative L2 "
        f"{errors['scaled']:.4f} scaled, {errors['plain cast']:.4f} plain cast. "
        f"Input unchanged: {comfy['input unchanged']}. Norms and biases identical: {kept}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=int, default=512, help="a multiple of 128")
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(machine()["threads"])
    import_comfyui()
    load_pack()
    comfyui = ".".join(map(str, comfyui_version()))
    results = {
        "machine": {**machine(), "comfyui": comfyui},
        "width": options.width,
        "repeats": options.repeats,
        "weight errors, relative L2": weight_errors(),
        "footprints": footprints(options.width),
        "hook times": [
            row
            for tokens in options.tokens
            for row in hook_times(options.width, tokens, options.repeats)
        ],
        "comfyui": in_comfyui(options.width, options.repeats),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "layerwise.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / "layerwise.md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
