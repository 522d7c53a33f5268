"""The node "Quantize Model"."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..quant_core.machine.compile_warnings import get_quant_compile_warnings
from ..quant_core.machine.fastest import DEFAULT_MAX_ERROR
from ..quant_core.methods import RANK
from ..quant_core.presets import PRESETS
from .shared.node_inputs import (
    AUTO,
    CALIBRATION,
    CONVOLUTIONS,
    ROUNDINGS,
    config_input,
    fingerprint,
    fit_inputs,
    method_input,
    plan_inputs,
    rank_input,
)


class GQQuantizeModel(io.ComfyNode):
    """The node that quantizes a diffusion model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQQuantizeModel",
            display_name="Quantize Model (FP8, INT8, INT4)",
            category="model/quantization",
            description=(
                "Stores the diffusion model's weights in FP8, INT8 or INT4. The input MODEL stays "
                "as it is; LoRAs work before and after this node."
            ),
            search_aliases=[
                *("fp8", "int8", "int4", "fp4", "nvfp4", "mxfp8", "nf4", "q4", "q8", "gguf"),
                *("quantize", "quant", "compress", "smaller model", "low vram", "low memory"),
                *("graphquant", "torchao"),
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model to quantize. It is not changed."),
                method_input(
                    "How the weights are stored. auto: the best choice on this machine. The help "
                    "page describes each method.",
                    calibrated=True,
                ),
                *plan_inputs(
                    PRESETS,
                    "auto: the list of the detected architecture.",
                    ("double_blocks.0", "*.img_mlp.*"),
                ),
                io.Boolean.Input(
                    "cache",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Keep the quantized weights on disk, in models/graphquant_cache, so "
                    "that the next start reads them instead of quantizing again. Takes as much "
                    "disk as the quantized model, for each model and each choice here.",
                ),
                config_input("method, granularity, include and exclude"),
                CALIBRATION.Input(
                    "calibration",
                    optional=True,
                    tooltip="From Calibrate Activations of the same MODEL: weights are rounded by "
                    "what they do to each layer's output. fp8-static needs its scales; fastest "
                    "measures with its row counts.",
                ),
                io.Float.Input(
                    "max_error",
                    default=DEFAULT_MAX_ERROR,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    round=0.001,
                    optional=True,
                    advanced=True,
                    tooltip="For the method fastest: the largest error that a layer's output may "
                    "have, relative to its size. int8 has about 0.01, fp8-dynamic 0.04, int4 0.1.",
                ),
                io.Combo.Input(
                    "rounding",
                    options=list(ROUNDINGS),
                    default=AUTO,
                    optional=True,
                    tooltip="auto: with a calibration, compensated where it lessens a layer's "
                    "error; without one, nearest. nearest: each weight by itself, quick. "
                    "compensated: each column corrects the errors before it; takes minutes.",
                ),
                *fit_inputs(),
                io.Boolean.Input(
                    "requantize",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Round weights again that are quantized already (FP8, INT8, NVFP4, "
                    "GGUF, bitsandbytes), where the method takes no more bits. Two roundings add "
                    "up: for checkpoints that exist in no other form.",
                ),
                io.Combo.Input(
                    "convolutions",
                    options=list(CONVOLUTIONS),
                    default=AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="Of UNets and audio models. auto: int8 stores them too where they hold "
                    "a quarter of the bytes. quantize: every method does, as int8 or its "
                    "weight-only form. It saves memory, not time.",
                ),
                io.String.Input(
                    "exact_steps",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="For methods that round activations: steps in which they do not, such "
                    "as first 2, last 2, or sigma 0-0.3. The same weights, multiplied without "
                    "rounding.",
                ),
                rank_input(),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The quantized model."),
                io.String.Output(display_name="report", tooltip="What was quantized and kept."),
                io.Image.Output(
                    display_name="chart",
                    tooltip="For the method fit: the error over size, and what was chosen.",
                ),
            ],
            hidden=[io.Hidden.prompt],
            has_intermediate_output=True,
        )

    @classmethod
    def fingerprint_inputs(cls, method=None, **_) -> int:
        return fingerprint(method)

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
        cache=False,
        calibration=None,
        max_error=DEFAULT_MAX_ERROR,
        config=None,
        rounding=AUTO,
        size_gib=0.0,
        sensitivity=None,
        stock_only=False,
        requantize=False,
        convolutions=AUTO,
        exact_steps="",
        rank=RANK,
    ) -> io.NodeOutput:
        from ..quant_core.fit import expected_effects, with_fit
        from ..quant_core.hardware import hardware_of
        from ..quant_core.methods import CALIBRATED, FIT
        from ..quant_core.planning.calibrated_layers import with_calibration
        from ..quant_core.planning.convolutions import with_convolutions
        from ..quant_core.planning.plan import plan_component
        from ..quant_core.rounding import require_rounding
        from .bridge.architecture.detected import preset_name
        from .bridge.cache.weight_cache import WeightCache, cache_folder
        from .bridge.files.sensitivity_folder import require_fitting
        from .bridge.measure.calibrating import fastest_search
        from .bridge.model.fit_request import fit_for
        from .bridge.model.quantize_patcher import quantize_patcher
        from .bridge.model.whole_size import of_whole_size
        from .bridge.tensor.exact_steps import ExactSteps, exact_steps_warnings, with_exact_steps
        from .bridge.tensor.native import has_compiled_int8
        from .shared.fit_chart import fit_chart
        from .shared.method_choice import MethodChoice, choose_for_model, resolve_device
        from .shared.node_output import node_output, unchanged
        from .shared.together import together_notes

        exact = ExactSteps.of(exact_steps)
        hardware = hardware_of(model.load_device, has_compiled_int8())
        chosen = MethodChoice(method, granularity, preset, include, exclude)
        chosen = choose_for_model(chosen, config, model.model, hardware)
        take_convolutions, about_convolutions = with_convolutions(
            model.model.diffusion_model, convolutions, chosen.method
        )
        plan = plan_component(
            model.model.diffusion_model,
            chosen.method,
            granularity=chosen.granularity,
            preset=chosen.preset_for(preset_name(model.model)),
            include=chosen.include,
            exclude=chosen.exclude,
            hardware=hardware,
            search=fastest_search(model, calibration, max_error),
            requantize=requantize,
            convolutions=take_convolutions,
            rank=rank,
            tables=True,
        )
        plan = with_calibration(plan, calibration)
        require_rounding(rounding, calibration)
        outcome, notes = None, (*chosen.notes, *about_convolutions)
        if plan.method == FIT:
            fit, found = fit_for(model, size_gib, sensitivity, stock_only)
            plan, outcome = with_fit(plan, fit, model.model_size())
            notes += found
        elif sensitivity is not None:
            notes += require_fitting(sensitivity, model.model.diffusion_model)
        plan = of_whole_size(plan, model.model, model.model.diffusion_model)
        chart = fit_chart(outcome)
        warnings = get_quant_compile_warnings(chosen.method, compile_mode)
        if plan.method != FIT and (size_gib or stock_only):
            warnings.append(
                f"size_gib and stock_only have no effect on {plan.method}. Choose the method fit."
            )
        if plan.method not in CALIBRATED and rank != RANK:
            warnings.append(f"rank has no effect on {plan.method}, which has no low-rank branch.")
        if not plan.quantized:
            return unchanged(model, model, plan, warnings, notes, more=(chart,))
        kept = WeightCache(cache_folder()) if cache else None
        quantized, reports = quantize_patcher(
            model,
            {"diffusion_model.": plan},
            compute_dtype=model.model.get_dtype_inference(),
            device=resolve_device(compute_device, model.load_device),
            cache=kept,
            calibration=calibration,
            rounding=rounding,
        )
        if exact is not None:
            quantized = with_exact_steps(quantized, exact)
            warnings += exact_steps_warnings(plan)
        if kept:
            warnings += kept.warnings
            notes += tuple(kept.notes)
        workflow = None if cls.hidden is None else cls.hidden.prompt
        notes += together_notes(workflow, quantized.model_size(), model.load_device)
        report = reports["diffusion_model."]
        if sensitivity is not None:
            effects = expected_effects(sensitivity, plan.quantized, report.rounding)
            report = replace(report, effects=effects)
        return node_output(quantized, report, warnings, notes, more=(chart,))
