"""The node "Quantize Text Encoder"."""

from __future__ import annotations

from comfy_api.latest import io

from ..quant_core.machine.compile_warnings import get_quant_compile_warnings
from ..quant_core.presets import ENCODER_PRESETS
from .shared.node_inputs import (
    AUTO,
    COMPUTE,
    FULL,
    config_input,
    fingerprint,
    method_input,
    plan_inputs,
    size_input,
    stock_input,
)


class GQQuantizeTextEncoder(io.ComfyNode):
    """The node that quantizes the text encoders of a CLIP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQQuantizeTextEncoder",
            display_name="Quantize Text Encoder (CLIP, T5, Qwen)",
            category="model/quantization",
            description=(
                "Stores a CLIP's text encoders (T5, Qwen, Gemma, Llama, ...) in FP8, INT8 or INT4, "
                "each by its own preset; compute multiplies in them too. The input CLIP stays as "
                "it is; LoRAs work before and after this node."
            ),
            search_aliases=["fp8", "int8", "int4", "quant", "CLIP", "T5", "text encoder", "VRAM"],
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP to quantize. It is not changed."),
                method_input(
                    "How the weights are stored. auto: int8, or int8-convrot where compute is "
                    "quantized: the least error at half the memory."
                ),
                *plan_inputs(
                    ENCODER_PRESETS,
                    "auto: the list of each encoder's own architecture; CLIP-L and CLIP-G stay "
                    "whole. Any other choice holds for all encoders.",
                    ("t5xxl", "*.SelfAttention.*"),
                ),
                config_input("method, granularity, include and exclude"),
                size_input("the text encoders together"),
                stock_input(),
                io.Combo.Input(
                    "compute",
                    options=list(COMPUTE),
                    default=FULL,
                    optional=True,
                    tooltip="full: in full precision, as ComfyUI does. quantized: methods that "
                    "round activations (int8-convrot, int8-dynamic, fp8-dynamic, w4a8) multiply "
                    "in them; the report has the embeddings' error, measured on three prompts.",
                ),
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
        size_gib=0.0,
        stock_only=False,
        compute=FULL,
    ) -> io.NodeOutput:
        from ..quant_core.hardware import hardware_of
        from ..quant_core.methods import FIT, resolve_method
        from .bridge.architecture.detected import encoder_preset_name, sub_encoders
        from .bridge.measure.encoding import encoding_errors, with_encoding_errors
        from .bridge.model.fit_request import fit_encoders
        from .bridge.model.text_encoders import (
            kept_reports,
            plan_encoders,
            quantize_clip,
            with_what_is_beside,
        )
        from .bridge.tensor.native import has_compiled_int8
        from .shared.method_choice import MethodChoice, choose_for_encoder, resolve_device
        from .shared.node_output import output_of_parts

        if clip is None:
            raise ValueError("There is no CLIP: the checkpoint holds none. Load one by itself.")
        chosen = MethodChoice(method, granularity, preset, include, exclude)
        chosen = choose_for_encoder(chosen, config, clip.patcher.model, compute)
        hardware = None
        if compute != FULL:
            hardware = hardware_of(clip.patcher.load_device, has_compiled_int8())
        encoders = sub_encoders(clip.patcher.model)
        plans = plan_encoders(
            encoders,
            chosen.method,
            chosen.granularity,
            {path: chosen.preset_for(encoder_preset_name(encoders[path])) for path in encoders},
            chosen.include,
            chosen.exclude,
            hardware,
        )
        # Of a CLIP that is quantized already there may be none.
        runs_as = next((plan.runs_as for plan in plans.values() if plan.quantized), "none")
        warnings = get_quant_compile_warnings(runs_as, compile_mode)
        notes = chosen.notes
        if resolve_method(chosen.method) == FIT and any(p.quantized for p in plans.values()):
            plans, found = fit_encoders(clip.patcher, plans, size_gib, stock_only)
            notes += found
        plans = with_what_is_beside(plans, clip.patcher.model)
        device = resolve_device(compute_device, clip.patcher.load_device)
        if any(plan.quantized for plan in plans.values()):
            quantized, reports = quantize_clip(clip, plans, device=device)
            if compute != FULL:
                taken = [path for path, plan in plans.items() if plan.quantized]
                reports = with_encoding_errors(reports, encoding_errors(clip, quantized, taken))
        else:
            quantized, reports = clip, kept_reports(clip, plans)
        return output_of_parts(
            (quantized,),
            {path.removesuffix(".transformer"): report for path, report in reports.items()},
            clip.patcher.model_size(),
            quantized.patcher.model_size(),
            warnings,
            notes,
        )
