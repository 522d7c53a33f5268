"""Files of nunchaku's (SVDQuant, INT4 or NVFP4), which are told from others and refused in words.

A layer L is ``L.qweight`` and ``L.wscales``, with ``L.lora_down``, ``L.lora_up``, ``L.smooth`` or
``L.proj_down``, ``L.proj_up`` and ``L.smooth_factor`` beside: tiles in the order of its kernels.

Tested by tests/nodes/bridge/loading/test_claimed.py.
"""

from __future__ import annotations

from ...errors import StorageError
from ..reader import TensorFiles


def refuse(files: TensorFiles) -> None:
    """StorageError where ``files`` are nunchaku's."""
    ending = ".wscales"
    layers = [name.removesuffix(ending) for name in files.specs if name.endswith(ending)]
    packed = [layer for layer in layers if f"{layer}.qweight" in files.specs]
    if packed:
        raise StorageError(
            f"{files.path.name} is an SVDQuant file of nunchaku's: {len(packed)} layers such as "
            f"{packed[0]} lie in tiles for its own kernels, and what would put them in order is "
            "missing here. Load it with ComfyUI-nunchaku, or quantize the original file."
        )
