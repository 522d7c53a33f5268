"""What this machine and this ComfyUI can compute, as the nodes report it."""
