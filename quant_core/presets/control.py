"""What stays in the models that steer a diffusion model: ControlNets, T2I-Adapters, model patches.

Tested by tests/nodes/test_quantize_controlnet.py.
"""

from __future__ import annotations

from .preset import Preset

# The output projection of each block into the diffusion model: a Linear, or one behind an
# activation. DiffSynth's patches give this name to the blocks themselves, which are quantized.
_EACH_BLOCK = tuple(
    f"{blocks}.{end}"
    for blocks in ("controlnet_blocks", "controlnet_single_blocks")
    for end in ("[0-9]", "[0-9][0-9]", "*.linear")
)

# Everything but the blocks is small, and what leaves a ControlNet is added to the diffusion model's
# own activations at each block, so both ends stay.
CONTROL = Preset(
    "control",
    "ControlNets, T2I-Adapters, model patches",
    keep=(
        "*emb*",
        "*_in",
        "*_in.*",
        "*time*",
        "*modulation*",
        "*ada[lL][nN]*",
        "*_mod.*",
        "*hint*",
        "zero_convs",
        "middle_block_out",
        *_EACH_BLOCK,
        "*.before_proj",
        "*.after_proj",
        "after_proj_list",
        "before_proj",
        "proj_out",
        "out",
    ),
    source="the layers that diffusion models keep, by the same names, and the projections into the "
    "diffusion model, which start from zero in training",
)
