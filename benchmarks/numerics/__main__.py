"""Weight and output error of each way to store a weight, side by side at equal bytes.

    python -m benchmarks.numerics [--without-miniature]

Relative L2, of the rounded weight, and of its product with activations in float32. Run with
GRAPHQUANT_COMFYUI naming a ComfyUI folder (``python3 dev.py setup`` fetches one) for the layers of
the trained miniature. Where the package convert-to-quant is installed it competes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from lab.pack import ROOT, load_pack

from .cases import Layer, miniature_case, synthetic_cases
from .contestants import Contestant, contestants

RESULTS = ROOT / "benchmarks" / "results"
MINIATURE = "miniature"


def measure(cases: dict[str, list[Layer]], competing: list[Contestant]) -> list[dict]:
    """A row for each contestant and case: errors over all layers of the case, and seconds."""
    rows = []
    for each in competing:
        for case, layers in cases.items():
            started = time.perf_counter()
            weight, output = _errors(layers, each.round)
            rows.append(
                {
                    "group": each.group,
                    "name": each.name,
                    "case": case,
                    "weight": weight,
                    "output": output,
                    "seconds": time.perf_counter() - started,
                }
            )
            print(f"{each.group:20} {each.name:48} {case:22} {weight:.5f} {output:.5f}", flush=True)
    return rows


def _errors(layers: list[Layer], rounding: Callable) -> tuple[float, float]:
    """Of the weights, over all layers together; of the outputs, the layers' mean."""
    from graphquant.quant_core.measure.relative_error import RunningError, error_of

    weights, outputs = RunningError(), []
    for layer in layers:
        rounded = rounding(layer.weight)
        weights.add(rounded, layer.weight)
        expected = layer.activations @ layer.weight.t()
        outputs.append(error_of(layer.activations @ rounded.t(), expected).relative_l2)
    return weights.error().relative_l2, sum(outputs) / len(outputs)


def markdown(rows: list[dict]) -> str:
    """A table a group: a row a contestant, two columns a case."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    lines = [
        "# Numerics",
        "",
        "`python -m benchmarks.numerics`: relative L2 of weight / output.",
        "",
    ]
    for package in ("torch", "torchao", "convert-to-quant"):
        try:
            lines.append(f"- {package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"- {package}: not installed")
    for group in dict.fromkeys(row["group"] for row in rows):
        lines += ["", f"## {group}", "", f"| | {' | '.join(cases)} |"]
        lines.append("|---" * (len(cases) + 1) + "|")
        named: dict[str, dict[str, dict]] = {}
        for row in rows:
            if row["group"] == group:
                named.setdefault(row["name"], {})[row["case"]] = row
        for name, found in named.items():
            cells = [f"{found[c]['weight']:.4f} / {found[c]['output']:.4f}" for c in cases]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--without-miniature", action="store_true")
    options = parser.parse_args()
    load_pack()
    cases = synthetic_cases()
    if not options.without_miniature:
        from lab.comfyui import import_comfyui

        import_comfyui()
        cases = {MINIATURE: miniature_case(), **cases}
    rows = measure(cases, contestants())
    (RESULTS / "numerics.md").write_text(markdown(rows))
    (RESULTS / "numerics.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
