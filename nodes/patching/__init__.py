"""The bridge from quant_core to ComfyUI's ModelPatcher."""
