"""The node "Calibrate Activations"."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths
from comfy_api.latest import io

from .shared.node_inputs import CALIBRATION, ROWS
from .shared.sampling_inputs import sampler_inputs
from .shared.verdict import GOOD, verdict

if TYPE_CHECKING:
    from ..quant_core.calibration import Calibration

FOLDER, SUFFIX = "graphquant_calibrations", ".safetensors"
MIB = 2**20


class GQCalibrateActivations(io.ComfyNode):
    """The node that measures the activations of a model's layers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQCalibrateActivations",
            display_name="Calibrate Activations",
            category="model/quantization",
            description=(
                "Samples with the MODEL and keeps what reaches every layer, so that Quantize Model "
                "can round weights by what they do to the layer's output. fp8-static and fastest "
                "use it too."
            ),
            search_aliases=["static", "input_scale", "quant", "calibration", "GPTQ", "imatrix"],
            inputs=[
                io.Model.Input("model", tooltip="The MODEL that will be quantized; not changed."),
                io.Conditioning.Input(
                    "positive", tooltip="A prompt that is typical for this model."
                ),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="Needed only where cfg is not 1."
                ),
                io.Latent.Input(
                    "latent_image", tooltip="A latent of the size that you usually make."
                ),
                *sampler_inputs(steps=8, cfg=1.0, optional=True),
                io.Float.Input(
                    "percentile",
                    default=100.0,
                    min=50.0,
                    max=100.0,
                    step=0.001,
                    round=0.001,
                    optional=True,
                    tooltip="How many percent of the activations the scale covers; larger ones are "
                    "clipped. 100: all that were seen.",
                ),
                io.Int.Input(
                    "rows",
                    default=ROWS,
                    min=0,
                    max=65536,
                    optional=True,
                    tooltip="How many rows of each layer's inputs are kept for rounding, drawn "
                    "evenly from the whole run; narrow layers keep more. 0: none, which does for "
                    "fp8-static and fastest.",
                ),
                io.Float.Input(
                    "memory_gib",
                    default=6.0,
                    min=0.0,
                    max=1024.0,
                    step=0.5,
                    round=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="How much main memory the rows may take, in GiB. Where they need more, "
                    "fewer are kept of every layer.",
                ),
                io.String.Input(
                    "file",
                    default="",
                    optional=True,
                    tooltip="A name under which the calibration is kept in "
                    "models/graphquant_calibrations. Where it exists it is read and nothing is "
                    "sampled; another model's is refused. Empty: not kept.",
                ),
            ],
            outputs=[
                CALIBRATION.Output(
                    display_name="calibration", tooltip="For Quantize Model of the same MODEL."
                ),
                io.String.Output(display_name="report", tooltip="The largest activations."),
            ],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        latent_image,
        negative=None,
        seed=0,
        steps=8,
        cfg=1.0,
        sampler_name="euler",
        scheduler="simple",
        percentile=100.0,
        rows=ROWS,
        memory_gib=6.0,
        file="",
    ) -> io.NodeOutput:
        from .bridge.measure.calibrating import calibrate, keep_calibration, kept_calibration
        from .bridge.measure.sampling import Sampling

        path = file_path(file) if file.strip() else None
        kept = None if path is None else kept_calibration(model, path)
        if kept is not None:
            return _output(kept, f"{describe(kept)}\n- read from {path.name}")
        sampling = Sampling(positive, negative, latent_image, steps, cfg, sampler_name, scheduler)
        calibration = calibrate(model, sampling, seed, percentile, rows, memory_gib)
        report = describe(calibration)
        if path is not None:
            report += (
                f"\n- kept in {path.name}, {keep_calibration(calibration, path) / MIB:.1f} MiB"
            )
        return _output(calibration, report)


def _output(calibration: Calibration, report: str) -> io.NodeOutput:
    name, seen = max(calibration.layers.items(), key=lambda item: item[1].maximum)
    found = {"layers": len(calibration.layers), "maximum": f"{seen.maximum:.4g}", "name": name}
    return io.NodeOutput(calibration, report, ui=verdict("calibrated", GOOD, **found))


def file_path(name: str) -> Path:
    """Where a calibration called ``name`` is kept. ValueError for anything but a plain name."""
    name = name.strip().removesuffix(SUFFIX)
    if not name or name.startswith(".") or set(name) & set('/\\:*?"<>|'):
        raise ValueError(f"file is {name!r}. Write a name without a folder, such as flux-dev.")
    return Path(folder_paths.models_dir) / FOLDER / f"{name}{SUFFIX}"


def describe(calibration: Calibration) -> str:
    """The report: how many layers were calibrated, and the ten largest activations."""
    largest = sorted(calibration.layers.items(), key=lambda item: -item[1].maximum)[:10]
    covered = "all" if calibration.percentile == 100 else f"{calibration.percentile:g} %"
    lines = [f"{len(calibration.layers)} layers calibrated; {covered} of each one's activations."]
    if calibration.rows:
        most = max(map(len, calibration.rows.values()))
        lines.append(
            f"- rows of inputs: up to {most} a layer, {calibration.row_bytes / MIB:.1f} MiB in all"
        )
    lines += [
        f"- {name}: up to {seen.maximum:.4g}, {seen.rows} rows, {seen.calls} calls"
        for name, seen in largest
    ]
    return "\n".join(lines)
