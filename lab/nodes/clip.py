"""A tiny dual CLIP, which no stock loader reads, and a node that saves what a CLIP encoded."""

from __future__ import annotations

import copy
from pathlib import Path

import comfy.sd
import folder_paths
from comfy_api.latest import io
from safetensors import safe_open
from safetensors.torch import save_file

from .clip_sizes import MODEL_OPTIONS, T5_OF_24_LAYERS


def load_dual_clip(clip_l: str | Path, t5xxl: str | Path, **more) -> comfy.sd.CLIP:
    """A FLUX.1 CLIP of two files, as ComfyUI loads one, at ``MODEL_OPTIONS``' sizes or those of a
    T5-XXL of 24 layers. more: further model options, such as dtype."""
    options = copy.deepcopy(MODEL_OPTIONS) | more
    with safe_open(t5xxl, "pt") as file:
        if any(".block.23." in name for name in file.keys()):  # noqa: SIM118 (no dictionary)
            options["t5xxl_model_config"] = dict(T5_OF_24_LAYERS)
    return comfy.sd.load_clip(
        [str(clip_l), str(t5xxl)], clip_type=comfy.sd.CLIPType.FLUX, model_options=options
    )


class LabDualClip(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LabDualClip",
            display_name="Lab Dual CLIP",
            category="lab",
            description="A tiny FLUX.1 CLIP, for tests: DualCLIPLoader expects the real sizes.",
            inputs=[io.String.Input("clip_l"), io.String.Input("t5xxl")],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def execute(cls, clip_l, t5xxl) -> io.NodeOutput:
        find = folder_paths.get_full_path_or_raise
        paths = [find("text_encoders", name) for name in (clip_l, t5xxl)]
        return io.NodeOutput(load_dual_clip(*paths))


class LabSaveConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LabSaveConditioning",
            display_name="Lab Save Conditioning",
            category="lab",
            description="Writes the first conditioning's tensor to the output folder, for tests.",
            inputs=[io.Conditioning.Input("conditioning"), io.String.Input("name")],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, conditioning, name) -> io.NodeOutput:
        path = Path(folder_paths.get_output_directory()) / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file({"conditioning": conditioning[0][0].contiguous()}, path)
        return io.NodeOutput(ui={"conditioning": [path.name]})
