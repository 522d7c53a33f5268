"""The node "Quantization Report"."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io, ui

from .shared.aligned import aligned
from .shared.bar_chart import Bar, bar_chart
from .shared.node_inputs import SENSITIVITY
from .shared.sampling_inputs import sampler_inputs
from .shared.verdict import INFO, verdict

if TYPE_CHECKING:
    from ..quant_core.measure.layer_table import LayerTable


class GQQuantizationReport(io.ComfyNode):
    """The node that measures what quantization did to every layer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQQuantizationReport",
            display_name="Quantization Report (errors of each layer)",
            category="model/quantization",
            description=(
                "What quantization did to every layer: format, bytes, and, beside a reference "
                "MODEL, the error of its weight and of its output on real activations. Worst "
                "first, as text, JSON and a chart. No MODEL is changed."
            ),
            search_aliases=["quant", "error", "SQNR", "layers", "measure", "calibration"],
            inputs=[
                io.Model.Input("model", tooltip="A quantized MODEL. It is not changed."),
                io.Model.Input(
                    "reference",
                    optional=True,
                    tooltip="The MODEL before it was quantized. Without it there are no errors to "
                    "measure. It is not changed.",
                ),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="With latent_image: a short run of the sampler, in which the output "
                    "of every quantized layer is compared.",
                ),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="Needed only where cfg is not 1."
                ),
                io.Latent.Input(
                    "latent_image", optional=True, tooltip="What the short run starts from."
                ),
                *sampler_inputs(steps=4, cfg=1.0, optional=True),
                SENSITIVITY.Input(
                    "sensitivity",
                    optional=True,
                    tooltip="From Measure Sensitivity: ranks the layers by what each one is "
                    "expected to do to the final latent.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="The table, worst layer first."),
                io.String.Output(display_name="json", tooltip="The same as JSON."),
                io.Image.Output(
                    display_name="chart", tooltip="One bar for each layer, worst first."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model,
        reference=None,
        positive=None,
        negative=None,
        latent_image=None,
        seed=0,
        steps=4,
        cfg=1.0,
        sampler_name="euler",
        scheduler="simple",
        sensitivity=None,
    ) -> io.NodeOutput:
        from .bridge.measure.layer_report import measure_layers
        from .bridge.measure.sampling import Sampling

        sampling = None
        if (positive is None) != (latent_image is None):
            missing = "latent_image" if latent_image is None else "positive"
            raise ValueError(
                f"{missing} is not connected: the short run needs positive and latent_image. "
                "Connect both, or neither for a report of the weights alone."
            )
        if positive is not None:
            sampling = Sampling(
                positive, negative, latent_image, steps, cfg, sampler_name, scheduler
            )
        table = measure_layers(model, reference, sampling, seed, sensitivity)
        report, chart = aligned(table.to_markdown()), draw(table)
        shown = ui.PreviewImage(chart, cls=cls).as_dict() | ui.PreviewText(report).as_dict()
        return io.NodeOutput(report, table.to_json(), chart, ui=shown | _verdict(table))


def _verdict(table: LayerTable) -> dict[str, list[dict]]:
    """The layer of the largest effect or error, or how many there are where none was measured."""
    layers, first = len(table.quantized), next(iter(table.quantized), None)
    if first is not None and first.effect is not None:
        found = {"name": first.layer.name, "effect": f"{first.effect:.4f}"}
        return verdict("latentEffect", INFO, whole=f"{table.effect:.4f}", **found)
    if first is None or first.worst < 0:
        return verdict("noErrors", INFO, layers=layers)
    found = {"name": first.layer.name, "error": f"{first.worst:.4f}"}
    return verdict("worstLayer", INFO, layers=layers, **found)


def draw(table: LayerTable) -> torch.Tensor:
    """The chart as an IMAGE: what the layers are expected to do to the final latent, else their
    relative L2 errors, else their bytes."""
    if table.effect is not None:
        bars = [
            Bar(each.layer.name, each.effect, f"{each.effect:.5f}  {each.format}")
            for each in table.quantized
            if each.effect is not None
        ]
        return bar_chart(f"expected relative L2 of the final latent. {table.summary()}", bars)
    if any(each.worst >= 0 for each in table.quantized):
        bars = [
            Bar(each.layer.name, max(each.worst, 0), f"{each.worst:.4f}  {each.format}")
            for each in table.quantized
        ]
        return bar_chart(f"relative L2 error a layer. {table.summary()}", bars)
    largest = sorted(table.quantized, key=lambda each: -each.layer.bytes_after)
    bars = [
        Bar(e.layer.name, e.layer.bytes_after, f"{e.layer.bytes_after}  {e.format}")
        for e in largest
    ]
    return bar_chart(f"bytes a layer. {table.summary()}", bars)
