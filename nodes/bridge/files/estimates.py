"""What each method would make of a file that a loader names: from its header, without loading."""

from __future__ import annotations

import os
from functools import lru_cache

import comfy.model_management
import folder_paths

from ....quant_core.conversion.sizes import estimate
from ....quant_core.errors import StorageError
from ....quant_core.layers import COMPONENT_TYPES

# ComfyUI's folders, and what a Quantize node takes out of their files.
COMPONENTS = {
    "diffusion_models": "transformer",
    "checkpoints": "transformer",
    "text_encoders": "encoder",
    "vae": "vae",
}


def estimates(folder: str, name: str, component: str | None = None) -> dict:
    """The sizes of a component of the file ``name`` in one of COMPONENTS' folders, by method; and
    the device's memory. component: None for what the folder is for.

    StorageError where ComfyUI's list of that folder has no such file, or it cannot be read.
    """
    if folder not in COMPONENTS or name not in folder_paths.get_filename_list(folder):
        raise StorageError(f"There is no file {name!r} in models/{folder}. Choose a listed one.")
    if component is not None and component not in COMPONENT_TYPES:
        raise StorageError(f"No component {component!r}. Valid: {', '.join(COMPONENT_TYPES)}.")
    path = folder_paths.get_full_path_or_raise(folder, name)
    stat = os.stat(path)
    device = comfy.model_management.get_torch_device()
    return {
        **_sizes(path, component or COMPONENTS[folder], stat.st_size, stat.st_mtime_ns),
        "device": {
            "name": comfy.model_management.get_torch_device_name(device),
            "total": comfy.model_management.get_total_memory(device),
            "free": comfy.model_management.get_free_memory(device),
        },
    }


@lru_cache(maxsize=32)
def _sizes(path: str, component: str, size: int, version: int) -> dict:
    """size, version: of the file, so that another one under its name is read anew."""
    return estimate(path, component_type=component).to_dict()
