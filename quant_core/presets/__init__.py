"""Which layers of a known architecture stay in high precision: data, with its sources.

Embedders, modulation and final layers are small and decide the picture. ``PRESETS`` are for
diffusion models, ``ENCODER_PRESETS`` for text encoders; their names do not overlap.
"""

from __future__ import annotations

from ..errors import UnknownNameError
from .encoders import ENCODERS
from .generic import generic_preset
from .image import IMAGE_PRESETS
from .official import OFFICIAL_PRESETS
from .preset import Preset, Raised
from .recognition import CHECKPOINT_PREFIX, Recognised, recognise
from .signatures import TABLES
from .video import VIDEO_PRESETS

__all__ = [
    "CHECKPOINT_PREFIX",
    "ENCODER_PRESETS",
    "PRESETS",
    "TABLES",
    "Preset",
    "Raised",
    "Recognised",
    "generic_preset",
    "get_preset",
    "recognise",
]

PRESETS: dict[str, Preset] = {
    preset.name: preset for preset in (*IMAGE_PRESETS, *VIDEO_PRESETS, *OFFICIAL_PRESETS)
}
ENCODER_PRESETS: dict[str, Preset] = {preset.name: preset for preset in ENCODERS}


def get_preset(name: str) -> Preset:
    """The preset called ``name``, of either table. UnknownNameError (a ValueError) if none is."""
    known = PRESETS | ENCODER_PRESETS
    if name not in known:
        raise UnknownNameError("preset", name, known)
    return known[name]
