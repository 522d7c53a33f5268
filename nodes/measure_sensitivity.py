"""The node "Measure Sensitivity"."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from comfy_api.latest import io

from .shared.node_inputs import SENSITIVITY
from .shared.sampling_inputs import sampler_inputs
from .shared.verdict import GOOD, verdict

if TYPE_CHECKING:
    from .bridge.measure.sensing import Measured

log = logging.getLogger(__name__)


class GQMeasureSensitivity(io.ComfyNode):
    """The node that measures what each layer does to the final latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQMeasureSensitivity",
            display_name="Measure Sensitivity",
            category="model/quantization",
            description=(
                "Rounds one block after another to 4 bits, samples, and notes how much the final "
                "latent changes: for the method fit of Quantize Model. Once for an architecture; "
                "the result is kept in models/graphquant_sensitivity."
            ),
            search_aliases=["fit", "mixed precision", "quant", "sensitivity", "calibration"],
            inputs=[
                io.Model.Input("model", tooltip="The MODEL to measure; it is not changed."),
                io.Conditioning.Input(
                    "positive", tooltip="A prompt that is typical for this model."
                ),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="Needed only where cfg is not 1."
                ),
                io.Latent.Input(
                    "latent_image",
                    tooltip="A latent of the size that you usually make, or smaller: each block "
                    "takes a run of the sampler.",
                ),
                *sampler_inputs(steps=8, cfg=1.0, optional=True),
                io.Boolean.Input(
                    "layer_by_layer",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Measure every layer by itself, which takes a run of the sampler for "
                    "each. Otherwise blocks are measured, and shared out by the layers' own "
                    "errors.",
                ),
            ],
            outputs=[
                SENSITIVITY.Output(
                    display_name="sensitivity", tooltip="For Quantize Model with the method fit."
                ),
                io.String.Output(
                    display_name="report", tooltip="The most and the least sensitive layers."
                ),
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
        layer_by_layer=False,
    ) -> io.NodeOutput:
        from .bridge.measure.sampling import Sampling
        from .bridge.measure.sensing import measure_sensitivity

        sampling = Sampling(positive, negative, latent_image, steps, cfg, sampler_name, scheduler)
        measured = measure_sensitivity(model, sampling, seed, not layer_by_layer, tell_progress)
        return io.NodeOutput(measured.sensitivity, describe(measured), ui=_verdict(measured))


def tell_progress(done: int, every: int, seconds_left: float) -> None:
    """Show on the node, and in the log, how far the measuring is."""
    from .bridge.model.progress import in_words, tell

    text = f"{done} of {every} measured, about {in_words(seconds_left)} left"
    log.info("Measure Sensitivity: %s", text)
    tell(text)


def _verdict(measured: Measured) -> dict[str, list[dict]]:
    """How many layers, the one that matters most, and where the result is kept."""
    effects = measured.sensitivity.effects
    worst = max(effects, key=effects.get)
    found = {"layers": len(effects), "name": worst, "effect": f"{effects[worst]:.4f}"}
    path = f"{measured.path.parent.name}/{measured.path.name}"
    return verdict("sensitivity", GOOD, path=path, **found)


def describe(measured: Measured) -> str:
    """The report: the file, what was measured, and the layers at both ends."""
    from .bridge.model.progress import in_words

    effects = measured.sensitivity.effects
    ranked = sorted(effects, key=effects.get, reverse=True)
    what = "blocks" if measured.sensitivity.by_block else "layers"
    lines = [
        f"{len(effects)} layers of {measured.sensitivity.architecture}: {measured.units} {what} "
        f"measured in {in_words(measured.seconds)}. Kept in models/{measured.path.parent.name}/"
        f"{measured.path.name}"
    ]
    if measured.resumed:
        lines.append(f"- {measured.resumed} of them by an earlier run that was stopped")
    lines += [f"- {name}: {effects[name]:.5f}" for name in ranked[:8]]
    if len(ranked) > 16:
        lines.append(f"- ({len(ranked) - 16} between)")
    lines += [f"- {name}: {effects[name]:.5f}" for name in ranked[8:][-8:]]
    return "\n".join(lines)
