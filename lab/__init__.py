"""Starts a real ComfyUI and feeds it tiny models: for the demo, the tests and the benchmarks."""
