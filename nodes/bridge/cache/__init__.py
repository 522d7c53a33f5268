"""Quantized weights kept on disk between runs of ComfyUI."""
