"""The node "Calibrate Activations"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from .shared.node_inputs import CALIBRATION
from .shared.sampling_inputs import sampler_inputs

if TYPE_CHECKING:
    from ..quant_core.calibration import Calibration


class GQCalibrateActivations(io.ComfyNode):
    """The node that measures the activations of a model's layers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQCalibrateActivations",
            display_name="Calibrate Activations",
            category="model/quantization",
            description=(
                "Samples with the unquantized MODEL and notes how large the activations of every "
                "layer get, for the methods fp8-static and fastest of Quantize Model."
            ),
            search_aliases=["static", "input_scale", "fp8", "quant", "calibration", "fastest"],
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
            ],
            outputs=[
                CALIBRATION.Output(
                    display_name="calibration", tooltip="For Quantize Model of the same MODEL."
                ),
                io.String.Output(display_name="report", tooltip="The largest activations."),
            ],
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
    ) -> io.NodeOutput:
        from .bridge.measure.calibrating import calibrate
        from .bridge.measure.sampling import Sampling

        sampling = Sampling(positive, negative, latent_image, steps, cfg, sampler_name, scheduler)
        calibration = calibrate(model, sampling, seed, percentile)
        return io.NodeOutput(calibration, describe(calibration))


def describe(calibration: Calibration) -> str:
    """The report: how many layers were calibrated, and the ten largest activations."""
    largest = sorted(calibration.layers.items(), key=lambda item: -item[1].maximum)[:10]
    covered = "all" if calibration.percentile == 100 else f"{calibration.percentile:g} %"
    lines = [f"{len(calibration.layers)} layers calibrated; {covered} of each one's activations."]
    lines += [
        f"- {name}: up to {seen.maximum:.4g}, {seen.rows} rows, {seen.calls} calls"
        for name, seen in largest
    ]
    return "\n".join(lines)
