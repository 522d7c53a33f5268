"""A quantized weight as ComfyUI carries it, and the layer that multiplies with it."""

from . import operators  # noqa: F401 - whoever has a tensor of our layout needs its operators
