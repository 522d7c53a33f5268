"""The node "Quantization Config"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..quant_core.methods import named_method
from .shared.node_inputs import QUANT_CONFIG

if TYPE_CHECKING:
    from ..quant_core.config import QuantConfig


class GQQuantizationConfig(io.ComfyNode):
    """The node that reads a quantization from text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQQuantizationConfig",
            display_name="Quantization Config (torchao, bitsandbytes)",
            category="model/quantization",
            description=(
                "One quantization for all Quantize nodes, written as a method's name or as the "
                "JSON of diffusers (torchao, bitsandbytes, quanto, ModelOpt) or vLLM-Omni."
            ),
            search_aliases=["torchao", "bitsandbytes", "quanto", "modelopt", "config.json"],
            inputs=[
                io.String.Input(
                    "text",
                    default="int8",
                    multiline=True,
                    tooltip="A method (nf4, int8wo, fp6_e3m2, ...), a dictionary as JSON "
                    '({"quant_method": "torchao", "quant_type": "int8wo"}), or a whole config.json '
                    "that has a quantization_config.",
                ),
            ],
            outputs=[
                QUANT_CONFIG.Output(
                    display_name="config", tooltip="For the input config of a Quantize node."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="What the text means here, and the whole dictionary.",
                ),
            ],
        )

    @classmethod
    def execute(cls, text) -> io.NodeOutput:
        from ..quant_core.config import config_from_text

        config = config_from_text(text)
        whole = config.to_json_string(use_diff=False).rstrip()
        return io.NodeOutput(config, "\n".join([*_told(config), "", whole]))


def _told(config: QuantConfig) -> list[str]:
    meaning = config.checked_meaning()
    named = named_method(meaning.method)
    lines = [f"{named.method.name}: {named.method.summary}"]
    if meaning.granularity or named.granularity:
        lines.append(f"- granularity: {meaning.granularity or named.granularity}")
    lines += [f"- only {pattern}" for pattern in meaning.include]
    lines += [f"- kept: {pattern}" for pattern in meaning.exclude]
    return lines + [f"- note: {note}" for note in (*named.notes, *meaning.notes)]
