"""The node "Load Quantized Model"."""

from __future__ import annotations

from comfy_api.latest import io

from .bridge.files.model_folder import choices, find


class GQLoadQuantizedModel(io.ComfyNode):
    """The node that loads a quantized diffusion model from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQLoadQuantizedModel",
            display_name="Load Quantized Model",
            category="model/quantization",
            description=(
                "Loads what Save Quantized Model wrote, bit by bit and without quantizing again; "
                "also bitsandbytes, torchao, ModelOpt and GGUF files, plain and scaled FP8, and "
                "sharded files by their index."
            ),
            search_aliases=[
                "unet",
                "diffusion model",
                "quant",
                "fp8",
                "int8",
                "int4",
                "sharded",
                "gguf",
                "bnb",
                "nf4",
            ],
            inputs=[
                io.Combo.Input(
                    "unet_name",
                    options=choices(),
                    tooltip="A .safetensors or .gguf file in models/diffusion_models, or the index "
                    "of a file in shards.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model, quantized as it was."),
                io.String.Output(display_name="report", tooltip="What the file holds."),
            ],
            has_intermediate_output=True,
        )

    @classmethod
    def fingerprint_inputs(cls, unet_name):
        """The time of the file's last change: it is loaded again when it was saved again."""
        return find(unet_name).stat().st_mtime_ns

    @classmethod
    def execute(cls, unet_name) -> io.NodeOutput:
        from .bridge.loading.load_model import load_quantized_model
        from .shared.node_output import node_output

        return node_output(*load_quantized_model(find(unet_name)))
