"""The node "Quantize Text Encoder"."""

from __future__ import annotations

from comfy_api.latest import io

from ..quant_core import get_quant_compile_warnings
from ..quant_core.presets import ENCODER_PRESETS
from .bridge.architecture.detected import sub_encoders
from .bridge.architecture.pipeline_names import encoder_architectures
from .bridge.model.encoders import kept_reports, plan_encoders, quantize_clip, weight_only
from .shared.configured import Settings, config_input, configured
from .shared.defaults import choose_default, fingerprint
from .shared.inputs import METHOD_SUMMARIES, method_input, plan_inputs
from .shared.options import AUTO, choose_encoder_preset, resolve_device
from .shared.output import output_of_parts

# Where memory is all there is to gain, the format that rounds least is best on every machine.
AUTO_METHOD = "int8"
AUTO_NOTE = f"auto chose {AUTO_METHOD}: the least error at half the memory."


class GQQuantizeTextEncoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQQuantizeTextEncoder",
            display_name="Quantize Text Encoder",
            category="model/quantization",
            description=(
                "Stores a CLIP's text encoders (T5, Qwen, Gemma, Llama, ...) in FP8, INT8 or INT4, "
                "each by its own preset. It saves memory, not time. The input CLIP stays as it is; "
                "LoRAs work before and after this node."
            ),
            search_aliases=["fp8", "int8", "int4", "quant", "CLIP", "T5", "text encoder", "VRAM"],
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP to quantize. It is not changed."),
                method_input(
                    f"auto: {AUTO_METHOD}, the least error at half the memory. {METHOD_SUMMARIES} "
                    "ComfyUI computes text encoders in full precision: the dynamic methods run "
                    "weight-only."
                ),
                *plan_inputs(
                    ENCODER_PRESETS,
                    "auto: the list of each encoder's own architecture; CLIP-L and CLIP-G stay "
                    "whole. Any other choice holds for all encoders.",
                    ("t5xxl", "*.SelfAttention.*"),
                ),
                config_input("method, granularity, include and exclude"),
            ],
            outputs=[
                io.Clip.Output(display_name="CLIP", tooltip="The quantized CLIP."),
                io.String.Output(
                    display_name="report", tooltip="What was quantized and kept, by encoder."
                ),
            ],
            has_intermediate_output=True,
        )

    @classmethod
    def fingerprint_inputs(cls, method=None, **_) -> int:
        return fingerprint(method)

    @classmethod
    def execute(
        cls,
        clip,
        method,
        granularity="per-row",
        preset=AUTO,
        include="",
        exclude="",
        compute_device=AUTO,
        compile_mode="none",
        config=None,
    ) -> io.NodeOutput:
        if clip is None:
            raise ValueError("There is no CLIP: the checkpoint holds none. Load one by itself.")
        said = configured(config, Settings(method, granularity, include, exclude))
        method, granularity, notes = choose_default(
            said.method, said.granularity, "encoder", encoder_architectures(clip.patcher.model)
        )
        notes += said.notes
        if method == AUTO:
            method = AUTO_METHOD
            notes.append(AUTO_NOTE)
        warnings = get_quant_compile_warnings(weight_only(method), compile_mode)
        encoders = sub_encoders(clip.patcher.model)
        presets = {path: choose_encoder_preset(preset, encoders[path]) for path in encoders}
        plans = plan_encoders(encoders, method, granularity, presets, said.include, said.exclude)
        device = resolve_device(compute_device, clip.patcher.load_device)
        if any(plan.quantized for plan in plans.values()):
            quantized, reports = quantize_clip(clip, plans, device=device)
        else:
            quantized, reports = clip, kept_reports(clip, plans)
        return output_of_parts(
            quantized,
            {path.removesuffix(".transformer"): report for path, report in reports.items()},
            clip.patcher.model_size(),
            quantized.patcher.model_size(),
            warnings,
            notes,
        )
