"""What a LoRA beside the codes costs a sampling step, at rank 16 and 128, on every quantized layer.

    python -m benchmarks.lora [--methods int8 int4] [--ranks 16 128] [--repeats 5]

Run with GRAPHQUANT_COMFYUI naming a ComfyUI folder (``python3 dev.py setup`` fetches one). The
model with the LoRA and the one without take turns, in eager mode; it is that of benchmarks.step.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch

from lab.comfyui import import_comfyui
from lab.pack import load_pack

from .flux_model import load_flux, quantized, size_for, title
from .measuring import default_device, hardware, named, table, use_threads, write
from .step import steps_in_turn

METHODS = ("fp8-dynamic", "int8", "int8-dynamic", "int4")
RANKS = (16, 128)
# Most time that a LoRA of rank 16 may add to a step: on an H100 or H200.
BAR = 0.03


def with_lora(patcher, rank: int):
    """A clone with a LoRA on every quantized Linear."""
    import comfy.lora

    from graphquant.nodes.bridge.tensor.quantized_layer import QuantizedLayer

    generator = torch.Generator().manual_seed(rank)
    lora = {}
    for name, layer in patcher.model.diffusion_model.named_modules():
        if isinstance(layer, QuantizedLayer) and layer.weight.dim() == 2:
            n, k = layer.weight.shape
            key = f"diffusion_model.{name}"
            lora[f"{key}.lora_up.weight"] = torch.randn(n, rank, generator=generator) * 0.01
            lora[f"{key}.lora_down.weight"] = torch.randn(rank, k, generator=generator) * 0.01
    patched = patcher.clone()
    keys = comfy.lora.model_lora_keys_unet(patcher.model, {})
    patched.add_patches(comfy.lora.load_lora(lora, keys), 1.0)
    return patched


@torch.inference_mode()
def measure(
    methods: Sequence[str],
    ranks: Sequence[int],
    device: torch.device,
    repeats: int,
    on_method: Callable[[dict], None] = lambda results: None,
) -> dict:
    """Seconds of a step by method: without a LoRA ("none") and by rank. on_method: called with what
    there is after each.

    A LoRA is loaded into its model: each measurement has one of its own.
    """
    size = size_for(device)
    plain = load_flux(size, device)
    rows: dict = {}
    results = {"hidden": size.hidden, "blocks": [size.double, size.single], "seconds": rows}
    for method in methods:
        models = {"none": quantized(plain, method)}
        for rank in ranks:
            models[str(rank)] = with_lora(quantized(plain, method), rank)
        rows[method] = steps_in_turn(models, size, device, repeats)
        on_method(results)
    return results


def overheads(results: dict, rank: int) -> dict[str, float]:
    """The share that a LoRA of ``rank`` adds to a step, by method."""
    rows = results["seconds"].items()
    return {method: seconds[str(rank)] / seconds["none"] - 1 for method, seconds in rows}


def markdown(results: dict) -> str:
    ranks = results["ranks"]
    shares = [overheads(results, rank) for rank in ranks]
    rows = [
        [method, seconds["none"], *(f"{share[method]:+.1%}" for share in shares)]
        for method, seconds in results["seconds"].items()
    ]
    head = ("method", "step s", *(f"rank {rank}" for rank in ranks))
    text = f"{title(results)} A LoRA on every quantized layer."
    return "\n".join([text, "", *table(head, rows), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--ranks", nargs="+", type=int, default=RANKS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--dynamic-vram", action="store_true", help="as ComfyUI starts on NVIDIA, in a table apart"
    )
    options = parser.parse_args()
    device = default_device()
    use_threads(device)
    import_comfyui()
    name = named("lora", options.dynamic_vram)
    load_pack()
    about = {
        "hardware": hardware(device),
        "repeats": options.repeats,
        "ranks": list(options.ranks),
    }

    def write_results(results: dict) -> None:
        write(name, about | results, markdown(about | results), device)

    measure(options.methods, options.ranks, device, options.repeats, write_results)


if __name__ == "__main__":
    main()
