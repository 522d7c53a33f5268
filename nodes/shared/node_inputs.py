"""The inputs that several Quantize nodes share: one order, one wording.

Tested by tests/nodes/test_quantize_model.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ...quant_core.machine.compile_warnings import COMPILE_MODES
from ...quant_core.methods import CALIBRATED, FIT, GRANULARITIES, METHODS, RANK

AUTO = "auto"
NONE = "none"
COMPUTE_DEVICES = (AUTO, "gpu", "cpu")
# As quant_core.rounding and quant_core.calibration have them, which a start need not load.
ROUNDINGS = (AUTO, "nearest", "compensated")
ROWS = 1024

SENSITIVITY_FOLDER = "graphquant_sensitivity"
DEFAULTS_FILE = "graphquant.toml"
DEFAULT = f"default ({DEFAULTS_FILE})"
DEFAULT_TOOLTIP = f"{DEFAULT}: what {DEFAULTS_FILE} in ComfyUI's user folder says."

QUANT_CONFIG = io.Custom("GQ_QUANT_CONFIG")
CALIBRATION = io.Custom("GQ_CALIBRATION")
SENSITIVITY = io.Custom("GQ_SENSITIVITY")


CONVOLUTIONS = (AUTO, "keep", "quantize")
FULL = "full"
COMPUTE = (FULL, "quantized")


def defaults_path() -> Path:
    """Where the user's file of defaults is, if there is one."""
    return Path(folder_paths.get_user_directory()) / DEFAULTS_FILE


def fingerprint(method: str | None) -> int:
    """A number that changes when the user's file of defaults does, for a node whose ``method`` is
    DEFAULT, and when measured sensitivities do, where it is FIT; for others always 0."""
    if method == FIT:
        folder = Path(folder_paths.models_dir) / SENSITIVITY_FOLDER
        return sum(file.stat().st_mtime_ns for file in folder.glob("*.json"))
    file = defaults_path()
    return file.stat().st_mtime_ns if method == DEFAULT and file.is_file() else 0


# The dropdown's order, by how many bits a weight takes: what most want first, then the rest.
_SHOWN = (
    *("int8", "fp8-dynamic", "fp8-weight-only", "int8-convrot", "nf4-fine", "int4"),
    *("fit", "fastest"),
    *("int8-dynamic", "llm.int8", "fp8-static", "fp8-block", "mxfp8"),
    *("int6", "w6a8", "fp6", "int5"),
    *("w4a8", "int4-dynamic", "nf4", "fp4", "nvfp4", "svdquant-int4", "svdquant-nvfp4"),
    *("int3", "int2", "none"),
)


def in_shown_order() -> list[str]:
    """Every method, the six common ones first, the rest in groups from 8 bits down."""
    known = [name for name in _SHOWN if name in METHODS]
    return [*known, *(name for name in METHODS if name not in known)]


def method_input(tooltip: str, calibrated: bool = False) -> io.Combo.Input:
    """The method: auto, every method, or what the user's file says. calibrated: whether the node
    takes a calibration, and so has the methods that round by one."""
    left_out = () if calibrated else CALIBRATED
    return io.Combo.Input(
        "method",
        options=[AUTO, *(name for name in in_shown_order() if name not in left_out), DEFAULT],
        default=AUTO,
        tooltip=f"{tooltip} {DEFAULT_TOOLTIP}",
    )


def config_input(overridden: str) -> io.Input:
    """The input that overrides the node's own. overridden: which of them, in words."""
    return QUANT_CONFIG.Input(
        "config",
        optional=True,
        tooltip=f"From Quantization Config. It replaces {overridden} above, where it names them.",
    )


def work_inputs() -> list[io.Input]:
    """What every node that quantizes asks for: which layers stay, and where the work is done."""
    return [
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
    ]


def plan_inputs(
    presets: Iterable[str], preset_tooltip: str, examples: tuple[str, str]
) -> list[io.Input]:
    """The optional inputs that refine a plan. examples: a pattern of whole name parts, and a
    glob."""
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
        *work_inputs(),
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


def fit_inputs() -> list[io.Input]:
    """What the method fit asks for."""
    return [
        size_input("the model"),
        SENSITIVITY.Input(
            "sensitivity",
            optional=True,
            tooltip="From Measure Sensitivity, for the method fit; others report what layers do to "
            "the picture. Without it, fit takes what lies in models/graphquant_sensitivity.",
        ),
        stock_input(),
    ]


def size_input(what: str) -> io.Input:
    """How large ``what`` may be."""
    return io.Float.Input(
        "size_gib",
        default=0.0,
        min=0.0,
        max=1024.0,
        step=0.1,
        round=0.001,
        optional=True,
        tooltip=f"For the method fit: GiB that {what} may take. 0: what is free on the device now, "
        "less what computing needs.",
    )


def stock_input() -> io.Input:
    """Whether only ComfyUI's own formats are chosen."""
    return io.Boolean.Input(
        "stock_only",
        default=False,
        optional=True,
        advanced=True,
        tooltip="For the method fit: only formats that ComfyUI loads without this pack.",
    )


def rank_input() -> io.Input:
    """How large the low-rank branch of SVDQuant's methods is."""
    return io.Int.Input(
        "rank",
        default=RANK,
        min=0,
        max=512,
        optional=True,
        advanced=True,
        tooltip="For svdquant-int4 and svdquant-nvfp4: the rank of the branch that stays in 16 "
        "bits. A higher one errs less and takes more memory and time. 0, for svdquant-nvfp4: no "
        "branch, and a file that ComfyUI reads without this pack.",
    )
