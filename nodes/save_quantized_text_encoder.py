"""The node "Save Quantized Text Encoder".

Tested by tests/nodes/bridge/saving/test_save_clip.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from .bridge.files.model_folder import below_models, save_target
from .shared.verdict import GOOD, INFO, joined, verdict

if TYPE_CHECKING:
    from .bridge.saving.save_clip import SavedClip

FOLDER = "text_encoders"
# ComfyUI's, by how many files they read, with the names that their nodes have.
LOADERS = {1: "Load CLIP", 2: "Load CLIP (Dual)", 3: "Load CLIP (Triple)"}


class GQSaveQuantizedTextEncoder(io.ComfyNode):
    """The node that writes the quantized text encoders of a CLIP to files."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQSaveQuantizedTextEncoder",
            display_name="Save Quantized Text Encoder",
            category="model/quantization",
            description=(
                "Writes a quantized CLIP to models/text_encoders, a file for each text encoder. "
                "Load CLIP and Dual CLIP Loader read them, with this pack or without."
            ),
            search_aliases=["export", "clip save", "safetensors", "T5", "fp8", "int8"],
            inputs=[
                io.Clip.Input(
                    "clip",
                    tooltip="A CLIP in int8, FP8 with granularity per-tensor, MXFP8 or NVFP4; "
                    "LoRAs are rounded in.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="quantized",
                    tooltip="The name below models/text_encoders, without .safetensors. With "
                    "several encoders, each one's name is added: quantized_t5xxl.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    optional=True,
                    tooltip="Replace files of that name. Off: refuse, unless they hold these very "
                    "bytes.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="paths", tooltip="Where the files are, one a line."),
                io.String.Output(display_name="report", tooltip="What was written."),
            ],
            is_output_node=True,
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, clip, filename_prefix, overwrite=False) -> io.NodeOutput:
        from ..quant_core.errors import told_in_words
        from .bridge.saving.save_clip import save_quantized_clip

        if clip is None:
            raise ValueError("There is no CLIP: the checkpoint holds none. Load one by itself.")
        with told_in_words():
            saved = save_quantized_clip(clip, save_target(filename_prefix, FOLDER), overwrite)
        paths = "\n".join(str(path) for path in saved.paths.values())
        return io.NodeOutput(paths, saved.to_markdown(), ui=_verdict(saved))


def _verdict(saved: SavedClip) -> dict[str, list[dict]]:
    """Where the files are, how large, and what loads them."""
    from ..quant_core.report import MIB

    lines = []
    for name, path in saved.paths.items():
        found = {"path": below_models(path, FOLDER), "mib": f"{saved.sizes[name] / MIB:.1f}"}
        there = name in saved.there
        lines.append(
            verdict("unchanged", GOOD, **found) if there else verdict("saved", GOOD, **found)
        )
    loader = LOADERS.get(len(saved.paths), "Load CLIP (Quadruple)")
    return joined(*lines, verdict("loadWith", INFO, node=loader))
