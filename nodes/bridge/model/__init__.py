"""Quantized copies of ComfyUI's models: diffusion models, VAEs and text encoders."""
