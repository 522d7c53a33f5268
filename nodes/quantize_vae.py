"""The node "Quantize VAE"."""

from __future__ import annotations

from comfy_api.latest import io

from ..quant_core.planning.vae_rules import METHODS, SCOPES
from .shared.node_inputs import DEFAULT, DEFAULT_TOOLTIP, config_input, fingerprint


class GQQuantizeVAE(io.ComfyNode):
    """The node that quantizes a VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQQuantizeVAE",
            display_name="Quantize VAE (image and video decoder)",
            category="model/quantization",
            description=(
                "Stores a VAE's convolution and Linear weights in INT8: half the memory for them. "
                "The peak of a large decode is its activations, which stay as they are: use VAE "
                "Decode (Tiled) against those. The input VAE is not changed."
            ),
            search_aliases=["int8", "quant", "VAE", "VRAM", "low memory", "decoder"],
            inputs=[
                io.Vae.Input("vae", tooltip="The VAE to quantize. It is not changed."),
                io.Combo.Input(
                    "method",
                    options=[*METHODS, DEFAULT],
                    default="int8",
                    tooltip="int8: half the memory for the weights. none: the same VAE back. "
                    "int8-convrot: for transformer decoders (MiniMax H3), INT8 products. "
                    "Convolutions have no FP8 and no INT4. "
                    f"{DEFAULT_TOOLTIP}",
                ),
                io.Combo.Input(
                    "scope",
                    options=list(SCOPES),
                    default="decoder",
                    optional=True,
                    tooltip="The half to quantize. The decoder is the larger one, and the only "
                    "one that text to image uses.",
                ),
                config_input("method"),
            ],
            outputs=[
                io.Vae.Output(display_name="VAE", tooltip="The quantized VAE."),
                io.String.Output(
                    display_name="report", tooltip="What was quantized, what was kept, and why."
                ),
            ],
            has_intermediate_output=True,
        )

    @classmethod
    def fingerprint_inputs(cls, method=None, **_) -> int:
        return fingerprint(method)

    @classmethod
    def execute(cls, vae, method="int8", scope="decoder", config=None) -> io.NodeOutput:
        from ..quant_core.hardware import hardware_of
        from ..quant_core.planning.plan import plan_component
        from .bridge.model.vae import quantize_vae
        from .bridge.model.whole_size import of_whole_size
        from .shared.method_choice import MethodChoice, choose_for_vae
        from .shared.node_output import node_output, unchanged

        vae.throw_exception_if_invalid()
        chosen = choose_for_vae(MethodChoice(method), config, vae)
        plan = plan_component(
            vae.first_stage_model,
            chosen.method,
            "vae",
            chosen.granularity,
            include=chosen.include,
            exclude=chosen.exclude,
            scope=scope,
            hardware=hardware_of(vae.device),
        )
        plan = of_whole_size(plan, vae.first_stage_model, vae.first_stage_model)
        if not plan.quantized:
            return unchanged(vae, vae.patcher, plan, notes=chosen.notes)
        quantized, report = quantize_vae(vae, plan, device=vae.device)
        return node_output(quantized, report, notes=chosen.notes)
