"""A quantized weight as ComfyUI carries it, and the layer that multiplies with it."""
