"""The node "Capability Check"."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy.model_management import get_torch_device, throw_exception_if_processing_interrupted
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..quant_core.hardware import in_short
from .shared.aligned import aligned
from .shared.verdict import INFO, verdict

if TYPE_CHECKING:
    from ..quant_core.machine.benchmark_gemm import GemmTiming
    from ..quant_core.machine.capability import Capability

MEASURED = ("fp8-dynamic", "fp8-weight-only", "int8", "int8-dynamic")


class GQFP8CapabilityCheck(io.ComfyNode):
    """The node that says which methods run on this machine."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQFP8CapabilityCheck",
            display_name="Capability Check (FP8, INT8, INT4)",
            category="model/quantization",
            description=(
                "What should I use on this machine? Tries every method on the device and says what "
                "runs as named, what is only emulated, what falls back, why, and what helps."
            ),
            search_aliases=["fp8", "capability", "hardware", "benchmark", "triton", "GPU", "quant"],
            inputs=[
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Checks this model's device, and the benchmark measures the shapes of "
                    "its layers. Without it: ComfyUI's device and typical shapes.",
                ),
                io.Boolean.Input(
                    "benchmark",
                    default=False,
                    optional=True,
                    tooltip="Measure matmuls of bf16, FP8 and INT8 for a few seconds. The result "
                    "is kept: to measure again, switch it off and on.",
                ),
            ],
            outputs=[
                io.Boolean.Output(
                    "fp8_supported",
                    display_name="fp8_supported",
                    tooltip="Whether the device multiplies FP8 by FP8 in hardware.",
                ),
                io.String.Output(
                    "recommended_method",
                    display_name="recommended_method",
                    tooltip="The method to start with on this machine.",
                ),
                io.String.Output(
                    "report", display_name="report", tooltip="All that was found, as text."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, model=None, benchmark=False) -> str:
        """The device and its kernels, as text. The time is not in it: nodes after this one would
        run again at every prompt."""
        from .capability.kitchen import kitchen_backends

        return str((get_torch_device(), kitchen_backends()))

    @classmethod
    def execute(cls, model=None, benchmark=False) -> io.NodeOutput:
        from ..quant_core.machine.benchmark_gemm import fastest
        from ..quant_core.machine.capability import NATIVE, examine
        from .bridge.tensor.native import has_compiled_int8
        from .capability.capability_report import capability_markdown
        from .capability.kitchen import examine_kitchen

        device = get_torch_device() if model is None else model.load_device
        found, kitchen = examine(device, has_compiled_int8()), examine_kitchen(device)
        timings, problem = _measure(model, device, found) if benchmark else ((), None)
        recommended = fastest(timings, (found.recommended, "int8"))
        report = aligned(capability_markdown(found, kitchen, timings, recommended))
        if problem:
            report += f"\n\nThe benchmark did not run: {problem}."
        answer = {
            **found.to_dict(),
            "recommended": recommended,
            "kitchen": kitchen.to_dict(),
            "benchmark": [timing.to_dict() for timing in timings],
        }
        outputs = (found.fp8_supported, recommended, report)
        native = sum(each.status == NATIVE for each in found.methods)
        summary = verdict(
            "runsHere",
            INFO,
            native=native,
            total=len(found.methods),
            device=found.machine.hardware.name,
            recommended=recommended,
        )
        return io.NodeOutput(*outputs, ui={"capability": [answer], **summary})


def _measure(
    model: ModelPatcher | None, device: torch.device, found: Capability
) -> tuple[tuple[GemmTiming, ...], str | None]:
    """The timings, or none and what went wrong."""
    from ..quant_core.machine import benchmark_gemm as gemm

    if model is None:
        shapes = gemm.typical_shapes(device)
    else:
        shapes = gemm.linear_shapes(model.model.diffusion_model)
    if not shapes:
        return (), "the model has no Linear layer"
    methods = [method for method in MEASURED if method in found.running]
    cancel = throw_exception_if_processing_interrupted
    try:
        rows = gemm.typical_rows(device)
        return gemm.measure_gemms(shapes, methods, device, rows, on_shape=cancel), None
    except RuntimeError as error:  # no bfloat16 here, or no memory left: the rest still stands
        return (), in_short(error)
