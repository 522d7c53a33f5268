"""Error of a product where activations are rounded too, with and without outlier channels.

    python -m benchmarks.numerics.products

Relative L2 of ``x @ W.T`` against float32, Gaussian weights of 1024 x 3072, 256 rows of Gaussian
activations; as outliers every hundredth channel is 30 times as large. Writes results/products.json
and products.md.
"""

from __future__ import annotations

import json

import torch

from lab.pack import ROOT, load_pack
from lab.sampling import relative_l2

RESULTS = ROOT / "benchmarks" / "results"
METHODS = ("int8", "int8-dynamic", "llm.int8", "int8-convrot", "w6a8", "w4a8", "int4-dynamic")
_SHAPE, _ROWS, _EVERY, _FACTOR = (1024, 3072), 256, 100, 30


def measure(methods: tuple[str, ...] = METHODS) -> dict[str, dict[str, float]]:
    """By method: the error of the product with Gaussian and with outlier activations."""
    load_pack()
    from graphquant.quant_core.methods import METHODS as KNOWN

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(_SHAPE, generator=generator) * 0.02
    x = torch.randn(_ROWS, _SHAPE[1], generator=generator)
    outliers = x.clone()
    outliers[:, ::_EVERY] *= _FACTOR
    found = {}
    for name in methods:
        fmt = KNOWN[name].choose(_SHAPE, "per-row").format
        stored = fmt.quantize(weight)
        found[name] = {
            kind: relative_l2(fmt.linear(rows, stored, None), rows @ weight.T)
            for kind, rows in (("Gaussian", x), ("outlier channels", outliers))
        }
    return found


def markdown(found: dict[str, dict[str, float]]) -> str:
    """The table that results/products.md holds."""
    rows = [
        f"| {name} | {each['Gaussian']:.4f} | {each['outlier channels']:.4f} |"
        for name, each in found.items()
    ]
    head = ["| method | Gaussian | outlier channels |", "|---|---|---|"]
    title = [
        "# Products with rounded activations",
        "",
        "`python -m benchmarks.numerics.products`",
        "",
    ]
    return "\n".join([*title, *head, *rows, ""])


def main() -> None:
    found = measure()
    (RESULTS / "products.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "products.md").write_text(markdown(found), encoding="utf-8")
    print(markdown(found))


if __name__ == "__main__":
    main()
