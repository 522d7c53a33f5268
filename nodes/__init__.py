"""Everything that knows ComfyUI: one node a file."""
