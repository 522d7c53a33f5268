"""Runs of ComfyUI's sampler that measure a model: activations, errors of layers and of calls."""
