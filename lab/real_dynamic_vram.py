"""ComfyUI's dynamic VRAM in a process of ours, switched on as ComfyUI's start does on NVIDIA."""

from __future__ import annotations


def switch_on_dynamic_vram() -> bool:
    """Whether it is on now: it needs an NVIDIA GPU and comfy-aimdo's library. To be called after
    ``import_comfyui`` and before the first model is loaded."""
    import comfy.memory_management
    import comfy.model_management
    import comfy.model_patcher
    import comfy_aimdo.control as control

    if not comfy.model_management.is_nvidia():
        return False
    control.init()
    indices = [device.index for device in comfy.model_management.get_all_torch_devices()]
    try:
        ready = control.init_devices((index, 0) for index in indices)
    except TypeError:  # before 0.4.10 of comfy-aimdo
        ready = control.init_devices(indices)
    if ready:
        comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
        comfy.memory_management.aimdo_enabled = True
    return bool(ready)
