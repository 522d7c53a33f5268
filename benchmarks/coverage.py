"""How much of each architecture is quantized, and what a model weighs then.

    python -m benchmarks.coverage

Plans on ComfyUI's own module trees at their released sizes, on the meta device, without weights.
Run with GRAPHQUANT_COMFYUI naming a ComfyUI folder (``python3 dev.py setup`` fetches one).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from lab.architectures import TEXT_ENCODERS, TREES, UNLISTED_TREES, base_model, text_encoder
from lab.comfyui import import_comfyui
from lab.pack import ROOT, load_pack
from lab.tiny_kinds import ACE_STEP_15, STABLE_AUDIO, whole

RESULTS = ROOT / "benchmarks" / "results"
GIB = 1024**3
# 8, 6.5, 4.5 and 4.25 bits a weight. What other methods store weighs as much as one of these.
METHODS = ("int8", "w6a8", "nvfp4", "int4")
ENCODER_METHODS = ("int8", "int4")


# Made on the CPU, where nothing writes to their weights: their classes read values of a checkpoint.
AUDIO = {kind.name: kind for kind in (STABLE_AUDIO, ACE_STEP_15)}


@dataclass(frozen=True)
class Encoder:
    """The text encoders of one family. gib: their size by method. tables: bytes of embeddings that
    are stored in INT8, in GiB of bf16."""

    name: str
    tables: float
    gib: dict[str, float]


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

    if name in AUDIO:
        model, preset = whole(AUDIO[name]).diffusion_model, "generic"
    else:
        model = base_model(name).diffusion_model
        preset = (TREES | UNLISTED_TREES)[name].preset or "generic"
    sizes = {"bf16": module_bytes(model) / GIB}
    for method in METHODS:
        convolutions, _ = with_convolutions(model, AUTO, method)
        plan = plan_component(model, method, preset=preset, convolutions=convolutions, tables=True)
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


def measure_encoder(name: str) -> Encoder:
    """Of the text encoders of one family, in bf16, by the presets of Quantize Text Encoder."""
    from graphquant.nodes.bridge.architecture.detected import encoder_preset_name, sub_encoders
    from graphquant.nodes.bridge.model.text_encoders import plan_encoders
    from graphquant.quant_core import NothingToQuantizeError
    from graphquant.quant_core.layers import TABLE

    encoders = sub_encoders(text_encoder(name))
    presets = {path: encoder_preset_name(module) for path, module in encoders.items()}
    sizes, tables = {}, 0
    for method in ENCODER_METHODS:
        try:
            plans = plan_encoders(encoders, method, "per-row", presets).values()
        except NothingToQuantizeError:
            break
        sizes.setdefault("bf16", sum(plan.bytes_before for plan in plans) / GIB)
        sizes[method] = sum(plan.bytes_after for plan in plans) / GIB
        taken = [layer for plan in plans for layer in plan.quantized if layer.kind == TABLE]
        tables = sum(layer.bytes_before for layer in taken) / GIB
    return Encoder(name, tables, sizes)


def encoders_markdown(rows: list[Encoder]) -> str:
    """The section on text encoders."""
    lines = [
        "",
        "## Text encoders",
        "",
        "By the presets of Quantize Text Encoder; large tables of embeddings are INT8 by any "
        "method. CLIP alone stays.",
        "",
        f"| text encoders of | bf16 GiB | of which tables | {' | '.join(ENCODER_METHODS)} |",
        f"| --- {'| ---: ' * (2 + len(ENCODER_METHODS))}|",
    ]
    for row in rows:
        whole, *others = row.gib.values()
        cells = " | ".join(f"{size:.2f}" for size in (whole, row.tables, *others))
        lines.append(f"| {row.name} | {cells} |")
    return "\n".join(lines) + "\n"


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
    for name in [*TREES, *UNLISTED_TREES, *AUDIO]:
        rows.append(measure(name))
        print(markdown(rows).splitlines()[-1], flush=True)
    found = [measure_encoder(name) for name in TEXT_ENCODERS]
    text = markdown(rows) + encoders_markdown([each for each in found if each.gib])
    (RESULTS / "coverage.md").write_text(text)
    (RESULTS / "coverage.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
