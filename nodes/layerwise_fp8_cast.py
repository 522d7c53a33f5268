"""The node "Layerwise Cast"."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..quant_core.errors import UnknownNameError
from ..quant_core.patterns import parse_patterns
from ..quant_core.planning.layerwise_plan import (
    COMPUTE_DTYPES,
    DEFAULT_SKIP_PATTERNS,
    STORAGE_DTYPES,
    plan_layerwise,
)
from .shared.node_inputs import AUTO

SKIP_PATTERNS = "\n".join(DEFAULT_SKIP_PATTERNS)


class GQLayerwiseFP8Cast(io.ComfyNode):
    """The node that stores the weights of a model's layers in FP8."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQLayerwiseFP8Cast",
            display_name="Layerwise Cast (FP8 storage, any layer)",
            category="model/quantization",
            description=(
                "Stores the weights of Linear, Conv and Embedding layers in FP8 and computes them "
                "in the model's precision: half the memory on any device. The input MODEL stays "
                "as it is: bypass the node to undo it."
            ),
            search_aliases=["fp8", "layerwise casting", "upcast", "fp8 storage", "VRAM"],
            inputs=[
                io.Model.Input("model", tooltip="The model to cast. It is not changed."),
                io.Combo.Input(
                    "storage_dtype",
                    options=list(STORAGE_DTYPES),
                    default=STORAGE_DTYPES[0],
                    tooltip="float8_e4m3fn is twice as precise: 2.7 % error per weight, where "
                    "float8_e5m2 has 5.3 %. The larger range of float8_e5m2 only matters without "
                    "scales.",
                ),
                io.Combo.Input(
                    "compute_dtype",
                    options=[AUTO, *COMPUTE_DTYPES],
                    default=AUTO,
                    optional=True,
                    tooltip="What the whole model computes in. auto: its own dtype.",
                ),
                io.Boolean.Input(
                    "scaled",
                    default=True,
                    optional=True,
                    tooltip="One scale for each weight. Off: a plain cast, which loses small "
                    "weights (28 % error where the standard deviation is 0.002).",
                ),
                io.String.Input(
                    "skip_patterns",
                    default=SKIP_PATTERNS,
                    multiline=True,
                    optional=True,
                    advanced=True,
                    tooltip="Keep modules whose name matches, and all below them. One a line. "
                    "Unlike in the other nodes, a pattern is a regular expression searched "
                    "anywhere in the full name: norm also hits normal_proj; ^proj_in$ only the "
                    "whole name.",
                ),
                io.String.Input(
                    "skip_classes",
                    default="",
                    multiline=True,
                    optional=True,
                    advanced=True,
                    tooltip="Keep modules of these classes, and all below them. Class names, one a "
                    "line, such as Embedding or DoubleStreamBlock.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model, its weights in FP8."),
                io.String.Output(
                    display_name="report", tooltip="What was cast, what was kept, and why."
                ),
            ],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(
        cls,
        model,
        storage_dtype,
        compute_dtype=AUTO,
        scaled=True,
        skip_patterns=SKIP_PATTERNS,
        skip_classes="",
    ) -> io.NodeOutput:
        from .bridge.model.quantize_patcher import quantize_patcher
        from .bridge.model.whole_size import of_whole_size
        from .shared.node_output import node_output, unchanged

        if compute_dtype not in (AUTO, *COMPUTE_DTYPES):
            raise UnknownNameError("compute dtype", compute_dtype, (AUTO, *COMPUTE_DTYPES))
        plan = plan_layerwise(
            model.model.diffusion_model,
            storage_dtype,
            scaled,
            skip_patterns,
            parse_patterns(skip_classes),
        )
        plan = of_whole_size(plan, model.model, model.model.diffusion_model)
        if not plan.quantized:
            same = [] if compute_dtype == AUTO else ["compute_dtype is not set: nothing was cast."]
            return unchanged(model, model, plan, same)
        own = model.model.get_dtype_inference()
        dtype = own if compute_dtype == AUTO else getattr(torch, compute_dtype)
        cast, reports = quantize_patcher(
            model, {"diffusion_model.": plan}, compute_dtype=dtype, device=model.load_device
        )
        if compute_dtype != AUTO:
            cast.set_model_compute_dtype(dtype)
        return node_output(cast, reports["diffusion_model."])
