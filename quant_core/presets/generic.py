"""A preset for models that have none of their own, made from their layer names alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from .preset import Preset

# Inside blocks: whatever turns the time or condition into scales, shifts and gates (also Stable
# Cascade's mapper), or content into positions (TripoSplat's repo); and towers for other senses,
# which are lists of blocks too.
_IN_BLOCKS = (
    "*emb*",
    "*modulation*",
    "*ada[lL][nN]*",
    "*_mod.*",
    "*.mod.*",
    "*.mod_*",
    "*.mod[A-Z]*",
    "*.mapper",
    "*.mapper_*",
    "*repo_layers*",
    "*_logits",
    "visual",
    "vision_model",
    "audio_model",
)
# What stands before and after the blocks. Inside them proj_in and proj_out are ordinary layers.
_AROUND_BLOCKS = ("*_in", "*_in.*", "*time*", "*final*", "*proj_out*", "head", "*_head")


def generic_preset(names: Iterable[str]) -> Preset:
    """Quantize the blocks a model repeats, but for embedders and modulation inside them.

    names: of the Linear layers. A list of blocks is two or more numbered subnetworks that have two
    or more such layers each on average (``blocks.0.attn.q``). The longest list is quantized, and so
    are others that are nested no deeper: ``vace_blocks`` goes with ``blocks``, a refiner within
    ``txt_in`` is kept. Without a list, all is quantized but what looks like an end of the model.
    """
    blocks = _block_lists(names)
    return Preset(
        name="generic",
        title="any other model",
        keep=_IN_BLOCKS if blocks else _IN_BLOCKS + _AROUND_BLOCKS,
        only=tuple(f"{path}.*" for path in blocks),
        source="found from the layer names: the lists of repeated blocks",
    )


def _block_lists(names: Iterable[str]) -> list[str]:
    """Dotted paths of the lists of blocks, in the order of ``names``."""
    sizes: dict[str, Counter[str]] = defaultdict(Counter)
    for name in names:
        parts = name.split(".")
        at = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        if at and at < len(parts) - 1:
            sizes[".".join(parts[:at])][parts[at]] += 1
    lists = {
        path: len(blocks)
        for path, blocks in sizes.items()
        if len(blocks) > 1 and blocks.total() >= 2 * len(blocks)
    }
    deepest = max(lists, key=lists.__getitem__, default="").count(".")
    return [path for path in lists if path.count(".") <= deepest]
