"""The inputs that Quantize Model and Quantize Text Encoder share: one order, one wording."""

from __future__ import annotations

from collections.abc import Iterable

from comfy_api.latest import io

from ...quant_core import COMPILE_MODES, GRANULARITIES, METHODS
from .defaults import DEFAULT, DEFAULT_TOOLTIP
from .options import AUTO, COMPUTE_DEVICES, NONE

METHOD_SUMMARIES = " ".join(f"{method.name}: {method.summary}" for method in METHODS.values())


def method_input(tooltip: str) -> io.Combo.Input:
    """The method: auto, any that there is, or what the user's file says."""
    return io.Combo.Input(
        "method",
        options=[AUTO, *METHODS, DEFAULT],
        default=AUTO,
        tooltip=f"{tooltip} {DEFAULT_TOOLTIP}",
    )


def plan_inputs(
    presets: Iterable[str], preset_tooltip: str, examples: tuple[str, str]
) -> list[io.Input]:
    """What refines a plan, all optional. examples: a pattern of whole name parts, and a glob."""
    return [
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
            options=[AUTO, NONE, "generic", *presets],
            default=AUTO,
            optional=True,
            tooltip=f"Which sensitive layers stay in full precision. {preset_tooltip}",
        ),
        io.String.Input(
            "include",
            default="",
            multiline=True,
            optional=True,
            advanced=True,
            tooltip="Quantize only layers that match, one pattern a line: whole name parts "
            "({}) or a glob over the whole name ({}). Empty: all.".format(*examples),
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
    ]
