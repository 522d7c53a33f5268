"""The kernels in Triton, and what starts them. Nothing here imports Triton before one runs."""
