"""How much of each architecture is quantized, and what a model weighs then.

    python -m benchmarks.coverage

Plans on ComfyUI's own module trees at their released sizes, on the meta device, without weights.
Run with GRAPHQUANT_COMFYUI naming a ComfyUI folder (``python3 dev.py setup`` fetches one).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from lab.architectures import TREES, UNLISTED_TREES, base_model
from lab.comfyui import import_comfyui
from lab.pack import ROOT, load_pack

RESULTS = ROOT / "benchmarks" / "results"
GIB = 1024**3
# 8, 6.5, 4.5 and 4.25 bits a weight. What other methods store weighs as much as one of these.
METHODS = ("int8", "w6a8", "nvfp4", "int4")


@dataclass(frozen=True)
class Coverage:
    """One architecture. layers: (quantized, all Linears). weights: the share of the Linears'
    weights that is quantized. share: that of all the model's bytes, convolutions included where
    Quantize Model takes them. gib: its size by method."""

    name: str
    preset: str
    layers: tuple[int, int]
    weights: float
    share: float
    gib: dict[str, float]


def measure(name: str) -> Coverage:
    """Of one of the lab's trees, in bf16, by the preset that Quantize Model would take."""
    from graphquant.quant_core import plan_component
    from graphquant.quant_core.detect import module_bytes
    from graphquant.quant_core.planning.convolutions import AUTO, with_convolutions

    model = base_model(name).diffusion_model
    preset = (TREES | UNLISTED_TREES)[name].preset or "generic"
    sizes = {"bf16": module_bytes(model) / GIB}
    for method in METHODS:
        convolutions, _ = with_convolutions(model, AUTO, method)
        plan = plan_component(model, method, preset=preset, convolutions=convolutions)
        sizes[method] = plan.bytes_after / GIB
        if method == "int8":
            taken = sum(layer.bytes_before for layer in plan.quantized)
            share = taken / module_bytes(model)
            linears = [layer for layer in plan.layers if layer.kind == "Linear"]
            quantized = [layer for layer in linears if layer.action == "quantize"]
            weights = sum(layer.bytes_before for layer in quantized)
            weights /= sum(layer.bytes_before for layer in linears)
            layers = (len(quantized), len(linears))
    return Coverage(name, preset, layers, weights, share, sizes)


def markdown(rows: list[Coverage]) -> str:
    lines = [
        "# Coverage",
        "",
        "`python -m benchmarks.coverage`: ComfyUI's own module trees at released sizes, bf16. "
        "Sizes are GiB.",
        "",
        "| architecture | preset | Linears quantized | of their weights | of all bytes "
        f"| bf16 GiB | {' | '.join(METHODS)} |",
        f"| --- | --- {'| ---: ' * (4 + len(METHODS))}|",
    ]
    for row in rows:
        sizes = " | ".join(f"{size:.2f}" for size in row.gib.values())
        quantized, total = row.layers
        lines.append(
            f"| {row.name} | {row.preset} | {quantized} of {total} | {row.weights:.1%} "
            f"| {row.share:.1%} | {sizes} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    import_comfyui()
    load_pack()
    rows = []
    for name in TREES | UNLISTED_TREES:
        rows.append(measure(name))
        print(markdown(rows).splitlines()[-1], flush=True)
    (RESULTS / "coverage.md").write_text(markdown(rows))
    (RESULTS / "coverage.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
