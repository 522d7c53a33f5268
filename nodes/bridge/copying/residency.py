"""The attributes of a module that say where its weights are now; a copy starts without them."""

# On a layer that dynamic VRAM stages: the patch that waits, and its Change on the device.
STAGED_CHANGE = "_staged_change"

# What ModelPatcher and aimdo keep on a module about where its weights are at the moment.
RESIDENCY = (
    "comfy_patched_weights",
    "prev_comfy_cast_weights",
    "weight_lowvram_function",
    "bias_lowvram_function",
    "model_loaded_weight_memory",
    "model_offload_buffer_memory",
    "model_lowvram",
    "lowvram_patch_counter",
    "current_weight_patches_uuid",
    "dynamic_vbars",
    "dynamic_pins",
    "dynamic_patchers",
    "_v",
    "_v_signature",
    "_v_weight",
    "_v_bias",
    STAGED_CHANGE,
    "_prefetch",
    "_pin",
    "_pins",
    "_pin_state",
)
