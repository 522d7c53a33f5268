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


@dataclass(frozen=True)
class Coverage:
    """One architecture. layers: (quantized, all Linears). weights: the share of the Linears'
    weights that is quantized. share: that of all the model's bytes. gib: its size by method."""

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

    model = base_model(name).diffusion_model
    preset = (TREES | UNLISTED_TREES)[name].preset or "generic"
    whole = module_bytes(model)
    sizes = {"bf16": whole / GIB}
    for method in ("int8", "int4"):
        plan = plan_component(model, method, preset=preset)
        saved = sum(layer.bytes_before - layer.bytes_after for layer in plan.quantized)
        sizes[method] = (whole - saved) / GIB
        if method == "int8":
            linear = sum(layer.bytes_before for layer in plan.layers)
            taken = sum(layer.bytes_before for layer in plan.quantized)
            layers = (len(plan.quantized), len(plan.layers))
    return Coverage(name, preset, layers, taken / linear, taken / whole, sizes)


def markdown(rows: list[Coverage]) -> str:
    lines = [
        "# Coverage",
        "",
        "`python -m benchmarks.coverage`: ComfyUI's own module trees at released sizes, bf16.",
        "",
        "| architecture | preset | Linears quantized | of their weights | of all bytes "
        "| bf16 GiB | int8 | int4 |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
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
