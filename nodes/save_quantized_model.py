"""The node "Save Quantized Model"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from .bridge.files.model_folder import AUTO, FILE_FORMATS, below_models, save_target
from .shared.verdict import GOOD, INFO, joined, verdict

if TYPE_CHECKING:
    from .bridge.files.file_report import FileReport


class GQSaveQuantizedModel(io.ComfyNode):
    """The node that writes a quantized diffusion model to a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQSaveQuantizedModel",
            display_name="Save Quantized Model",
            category="model/quantization",
            description=(
                "Writes a quantized diffusion model to models/diffusion_models as safetensors. "
                "FP8 with one scale a tensor and INT8 become ComfyUI's own formats, which load "
                "without this pack; FP8 per row and INT4 need Load Quantized Model."
            ),
            search_aliases=["export", "checkpoint", "safetensors", "quant", "fp8", "int8", "int4"],
            inputs=[
                io.Model.Input("model", tooltip="A quantized model, LoRAs included."),
                io.String.Input(
                    "filename_prefix",
                    default="quantized",
                    tooltip="The name below models/diffusion_models, as it is: no counter is "
                    "added. Folders are allowed: quantized/flux-int8.",
                ),
                io.Combo.Input(
                    "format",
                    options=list(FILE_FORMATS),
                    default=AUTO,
                    optional=True,
                    tooltip="stock: ComfyUI's formats, which any ComfyUI loads; refused where a "
                    "layer has none. graphquant: this pack's own. auto: stock where possible.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    optional=True,
                    tooltip="Replace a file of that name. Off: refuse, unless it holds these very "
                    "bytes.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="path", tooltip="Where the file is."),
                io.String.Output(display_name="report", tooltip="What was written, and how."),
            ],
            is_output_node=True,
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, model, filename_prefix, format=AUTO, overwrite=False) -> io.NodeOutput:
        from ..quant_core.errors import told_in_words
        from .bridge.saving.save_model import save_quantized_model
        from .shared.node_output import node_output

        target = save_target(filename_prefix)
        with told_in_words():
            report = save_quantized_model(model, target, format, overwrite)
        output = node_output(str(target), report)
        output.ui = {**output.ui, **_verdict(report)}
        return output


def _verdict(report: FileReport) -> dict[str, list[dict]]:
    """Where the file is, how large, and what loads it."""
    from ..quant_core.report import MIB

    name = below_models(report.path)
    mib = f"{report.path.stat().st_size / MIB:.1f}"
    file = (
        verdict("saved", GOOD, path=name, mib=mib)
        if report.written
        else verdict("unchanged", GOOD, path=name, mib=mib)
    )
    return joined(file, verdict("loadWith", INFO, node=report.loader))
