"""What choosing each layer's width does to the miniature's final latents, at equal sizes.

    python -m benchmarks.fit [--other transformer.safetensors classes.safetensors]

At 4 to 6.5 bits a weight: every layer alike, widths chosen by weight error, and by measured
sensitivity; each to nearest and rounded by a calibration. The error is the relative L2 of the final
latents of 64 pictures, whose noise neither the calibration nor the sensitivities saw. --other: a
miniature of another training seed, whose sensitivities are tried on this one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lab.comfyui import import_comfyui
from lab.miniature import CFG, CLASSES, STEPS, TRANSFORMER
from lab.miniature.drawing import noise, sample_from
from lab.nodes import classes
from lab.nodes.noise import conditioning
from lab.pack import ROOT, load_pack
from lab.sampling import relative_l2, sample
from lab.tiny_models import WAN, tiny_wan

RESULTS = ROOT / "benchmarks" / "results"
UNIFORM = {4.25: "nf4-fine", 4.5: "int4-g64", 5.5: "int5", 6.5: "int6"}
"""The methods of one width by their bits a weight."""
BARS = {4.0: 0.045, 4.5: 0.027, 5.0: 0.015, 5.5: 0.011, 6.5: 0.008}
"""The most that widths by sensitivity and calibrated rounding together may err, by bits."""
MEASURED_ON, CALIBRATED_ON = ("01234567", 100), ("0123456789012345", 200)
"""Digits and the seed of their noise."""
DRAWN = [("0123456789012345", seed) for seed in range(4)]


@dataclass(frozen=True)
class Row:
    """One choice of widths. bits: a weight of the layers that may be quantized. errors: without and
    with calibrated rounding. predicted: without; None where nothing is measured."""

    way: str
    bits: float
    to_nearest: float
    compensated: float
    predicted: float | None = None


class Miniature:
    """A trained miniature, its plain pictures, and what was measured on it."""

    preset = "flux1"

    def __init__(self, transformer: Path = TRANSFORMER, table: Path = CLASSES):
        import comfy.sd

        self._table = table
        self.model = comfy.sd.load_diffusion_model(str(transformer))
        self._keep()

    def _keep(self) -> None:
        self.network = self.model.model.diffusion_model
        self.plain = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.reference = self.draw()

    def draw(self, drawn=DRAWN) -> torch.Tensor:
        """The final latents of all pictures."""
        classes.CLASSES = self._table
        return torch.cat(
            [sample_from(self.model, digits, noise(len(digits), seed)) for digits, seed in drawn]
        )

    def sampling(self):
        """What its sensitivity is measured with, and the seed of the noise."""
        from graphquant.nodes.bridge.measure.sampling import Sampling

        classes.CLASSES = self._table
        digits, seed = MEASURED_ON
        latent = {"samples": torch.zeros_like(noise(len(digits), seed))}
        conditioning = [classes.class_conditioning(each) for each in (digits, "")]
        return Sampling(*conditioning, latent, STEPS, CFG, "euler", "simple"), seed

    def calibration(self):
        """Rows of the inputs of every layer over a whole run."""
        from graphquant.quant_core import observe

        with observe(self.network) as seen:
            self.draw([CALIBRATED_ON])
        return seen.calibration

    def sensitivity(self, by_block: bool = False):
        """Measured as the node Measure Sensitivity does."""
        from graphquant.nodes.bridge.measure.sensing import (
            PROBE,
            layers_to_measure,
            measure_effects,
            units,
        )
        from graphquant.quant_core.calibration import fingerprint_of
        from graphquant.quant_core.fit import Sensitivity

        sampling, seed = self.sampling()
        formats = layers_to_measure(self.model)
        effects: dict[str, float] = {}
        measure_effects(
            self.model,
            sampling,
            seed,
            units(formats, by_block),
            lambda unit, of_unit: effects.update(of_unit),
        )
        return Sensitivity(self.preset, fingerprint_of(self.network), PROBE, effects, {}, by_block)

    def plan(self, method: str):
        """The plan that Quantize Model makes for ``method``."""
        from graphquant.quant_core import plan_component

        return plan_component(self.network, method, preset=self.preset)

    def error(self, plan, calibration=None) -> float:
        """Of the final latents when ``plan`` is carried out; the miniature is as it was then."""
        from graphquant.quant_core.applying.component import calibrated_rounding
        from graphquant.quant_core.applying.quantize_plan import quantize_plan

        rounds = calibrated_rounding(self.network, plan, calibration, "auto")
        weights = quantize_plan(plan, lambda name: self.plain[f"{name}.weight"], round_layer=rounds)
        changed = {f"{n}.weight": w.dequantize(torch.float32) for n, w in weights.items()}
        for name, shift in (rounds.bias_shifts if rounds else {}).items():
            changed[f"{name}.bias"] = self.plain[f"{name}.bias"] + shift
        try:
            self.network.load_state_dict(self.plain | changed)
            return relative_l2(self.draw(), self.reference)
        finally:
            self.network.load_state_dict(self.plain)


class RandomWan(Miniature):
    """A tiny Wan 2.1 of random weights: another architecture, whose figures compare only."""

    preset = "wan"

    def __init__(self, folder: Path):
        import comfy.sd

        file = tiny_wan(folder / WAN.file, layers=3)
        self.model = comfy.sd.load_diffusion_model(str(file))
        self._keep()

    def draw(self, drawn=range(6)) -> torch.Tensor:
        return torch.cat([sample(self.model, WAN, steps=STEPS, seed=seed) for seed in drawn])

    def sampling(self):
        from graphquant.nodes.bridge.measure.sampling import Sampling

        sizes = WAN.context_width, WAN.context_length, WAN.pooled_width, WAN.guidance
        positive = conditioning(0, *sizes)
        latent = {"samples": torch.zeros(2, *WAN.latent)}
        return Sampling(positive, None, latent, STEPS, 1.0, "euler", "simple"), 100


def fitted(model: Miniature, bits: float, sensitivity):
    """The plan and outcome of fit at ``bits`` a weight."""
    from graphquant.quant_core.fit import Fit, with_fit

    plan = model.plan("fit")
    before = sum(layer.bytes_before for layer in plan.quantized)
    weights = sum(layer.shape[0] * layer.shape[1] for layer in plan.quantized)
    return with_fit(plan, Fit(int(weights * bits / 8), sensitivity), before)


def by_weight_error(sensitivity):
    """What file converters go by: every layer's weight error counts alike."""
    from dataclasses import replace

    return replace(sensitivity, effects=dict.fromkeys(sensitivity.effects, 0.01))


def bits_of(plan) -> float:
    """Stored bits a weight over the layers that may be quantized."""
    layers = [layer for layer in plan.layers if not layer.reason.startswith("preset")]
    weights = sum(layer.shape[0] * layer.shape[1] for layer in layers)
    return 8 * sum(layer.bytes_after for layer in layers) / weights


def rows(
    model: Miniature, sensitivities: Mapping[str, object], calibrated: bool = True
) -> list[Row]:
    """All rows, printed as they come."""
    found, ways = [], [None, model.calibration()] if calibrated else [None, None]

    def add(way: str, plan, predicted: float | None = None) -> None:
        errors = [model.error(plan, given) for given in ways]
        found.append(Row(way, round(bits_of(plan), 3), *errors, predicted))
        print(line(found[-1]), flush=True)

    for method in UNIFORM.values():
        add(method, model.plan(method))
    for way, sensitivity in sensitivities.items():
        for bits in BARS:
            done = fitted(model, bits, sensitivity)
            add(way, done.plan, done.outcome.chosen.error if done.outcome.measured else None)
    return found


HEADER = (
    "| widths | bits | to nearest | calibrated | predicted, to nearest |",
    "| --- | ---: | ---: | ---: | ---: |",
)


def line(row: Row) -> str:
    """A row of the table."""
    predicted = "" if row.predicted is None else f"{row.predicted:.4f}"
    return (
        f"| {row.way} | {row.bits:.2f} | {row.to_nearest:.4f} | {row.compensated:.4f} "
        f"| {predicted} |"
    )


def missed(found: list[Row], way: str) -> list[str]:
    """The bars that ``way`` does not hold, in words."""
    own = [row for row in found if row.way == way]
    return [
        f"{way} at {bits} bits: {row.compensated:.4f}, the bar is {bar}"
        for (bits, bar), row in zip(BARS.items(), own, strict=True)
        if row.compensated > bar
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--other", nargs=2, type=Path, metavar=("TRANSFORMER", "CLASSES"))
    chosen = parser.parse_args()
    torch.set_num_threads(2)
    import_comfyui()
    load_pack()
    with torch.inference_mode(False), torch.no_grad():
        model = Miniature()
        own = model.sensitivity()
        sensitivities = {
            "fit, not measured": None,
            "fit by weight error": by_weight_error(own),
            "fit by sensitivity": own,
            "fit by sensitivity, by block": model.sensitivity(by_block=True),
        }
        if chosen.other:
            sensitivities["fit by another seed's"] = Miniature(*chosen.other).sensitivity()
        print("\n".join(HEADER))
        found = rows(model, sensitivities)
        with tempfile.TemporaryDirectory() as folder:
            other = RandomWan(Path(folder))
            ways = {"fit, not measured": None, "fit by sensitivity": other.sensitivity()}
            print("\n".join(HEADER))
            random = rows(other, ways, calibrated=False)
    RESULTS.mkdir(exist_ok=True)
    head = ["# Widths chosen by size: the miniature", "", "`python -m benchmarks.fit`", ""]
    second = ["## A tiny Wan 2.1 of random weights, to nearest alone", ""]
    lines = [*head, *HEADER, *map(line, found), "", *second, *HEADER, *map(line, random), ""]
    text = "\n".join(lines)
    (RESULTS / "fit.md").write_text(text)
    values = {"miniature": found, "wan": random}
    values = {name: [asdict(row) for row in each] for name, each in values.items()}
    (RESULTS / "fit.json").write_text(json.dumps(values, indent=1) + "\n")
    faults = missed(found, "fit by sensitivity")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
