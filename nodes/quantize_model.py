"""The node "Quantize Model"."""

from __future__ import annotations

from comfy_api.latest import io

from ..quant_core import (
    COMPILE_MODES,
    GRANULARITIES,
    METHODS,
    get_quant_compile_warnings,
    hardware_of,
    plan_component,
)
from ..quant_core.presets import PRESETS
from .options import AUTO, COMPUTE_DEVICES, choose_method, choose_preset, resolve_device
from .output import node_output, unchanged
from .patching.patcher import quantize_patcher

METHOD_TOOLTIP = "auto picks for this machine. " + " ".join(
    f"{method.name}: {method.summary}" for method in METHODS.values()
)


class GQQuantizeModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQQuantizeModel",
            display_name="Quantize Model",
            category="model/quantization",
            description=(
                "Stores the diffusion model's weights in FP8, INT8 or INT4. The input MODEL stays "
                "as it is; LoRAs work before and after this node."
            ),
            search_aliases=["fp8", "int8", "int4", "torchao", "quant", "VRAM", "low memory"],
            inputs=[
                io.Model.Input("model", tooltip="The model to quantize. It is not changed."),
                io.Combo.Input(
                    "method", options=[AUTO, *METHODS], default=AUTO, tooltip=METHOD_TOOLTIP
                ),
                io.Combo.Input(
                    "granularity",
                    options=list(GRANULARITIES),
                    default="per-row",
                    optional=True,
                    tooltip="One scale per output row, or one for the whole weight. Per row is "
                    "better for INT8 and for FP8 activations; INT4 has groups instead.",
                ),
                io.Combo.Input(
                    "preset",
                    options=[AUTO, "none", "generic", *PRESETS],
                    default=AUTO,
                    optional=True,
                    tooltip="Which sensitive layers stay in full precision. auto: the list of the "
                    "detected architecture.",
                ),
                io.String.Input(
                    "include",
                    default="",
                    multiline=True,
                    optional=True,
                    advanced=True,
                    tooltip="Quantize only layers that match, one pattern a line: whole name parts "
                    "(double_blocks.0) or a glob over the whole name (*.img_mlp.*). Empty: all.",
                ),
                io.String.Input(
                    "exclude",
                    default="",
                    multiline=True,
                    optional=True,
                    advanced=True,
                    tooltip="Keep layers that match in full precision, one pattern a line.",
                ),
                io.Combo.Input(
                    "compute_device",
                    options=list(COMPUTE_DEVICES),
                    default=AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="Where the weights are quantized, one layer at a time.",
                ),
                io.Combo.Input(
                    "compile_mode",
                    options=list(COMPILE_MODES),
                    default="none",
                    optional=True,
                    advanced=True,
                    tooltip="The torch.compile mode you will use after this node, for the report's "
                    "warnings. Nothing is compiled here.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The quantized model."),
                io.String.Output(display_name="report", tooltip="What was quantized and kept."),
            ],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(
        cls,
        model,
        method,
        granularity="per-row",
        preset=AUTO,
        include="",
        exclude="",
        compute_device=AUTO,
        compile_mode="none",
    ) -> io.NodeOutput:
        hardware = hardware_of(model.load_device)
        method, notes = choose_method(method, hardware)
        plan = plan_component(
            model.model.diffusion_model,
            method,
            granularity=granularity,
            preset=choose_preset(preset, model.model),
            include=include,
            exclude=exclude,
            hardware=hardware,
        )
        notes += get_quant_compile_warnings(method, compile_mode)
        if not plan.quantized:
            return unchanged(model, model, plan, notes)
        quantized, reports = quantize_patcher(
            model,
            {"diffusion_model.": plan},
            compute_dtype=model.model.get_dtype_inference(),
            device=resolve_device(compute_device, model.load_device),
        )
        return node_output(quantized, reports["diffusion_model."], notes)
