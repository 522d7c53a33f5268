"""What the official quantized files of a model keep, for users who want just that."""

from __future__ import annotations

from .image import FLUX2_KEEP
from .preset import Preset
from .video import LTX2_ONLY

OFFICIAL_PRESETS = (
    Preset(
        "flux2_fp8mixed",
        "FLUX.2, as the official fp8mixed file",
        keep=(*FLUX2_KEEP, "*_attn.qkv", "*_attn.proj"),
        source="the official fp8mixed file of FLUX.2 dev, which keeps these 32 Linears in bfloat16",
    ),
    Preset(
        "ltx2_official",
        "LTX-2, LTX-2.3, as the official FP8 and NVFP4 files",
        keep=tuple(f"transformer_blocks.{block}" for block in (0, 1, 46, 47)),
        only=LTX2_ONLY,
        source="the official FP8 and NVFP4 files of LTX-2.3, which keep the first and last blocks",
    ),
)
