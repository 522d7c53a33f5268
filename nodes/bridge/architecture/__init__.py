"""Which architecture a ComfyUI model is, and what other libraries call it and its layers."""
