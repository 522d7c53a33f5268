"""llama.cpp's own quantizers, from the ggml library that the package pywhispercpp brings."""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

BLOCK = 256


def library() -> ctypes.CDLL | None:
    """libggml-base, or None where pywhispercpp is not installed."""
    spec = find_spec("_pywhispercpp")
    found = sorted(Path(spec.origin).parent.glob("libggml-base.so*")) if spec else []
    return ctypes.CDLL(str(found[0])) if found else None


def rounded(weight: torch.Tensor, kind: str) -> torch.Tensor:
    """``weight`` as the GGUF type ``kind`` ("Q4_K", "IQ4_XS") gives it back, without an importance
    matrix. Blocks of 256 run on over the ends of rows where a row is shorter."""
    import gguf

    ggml = library()
    kind = gguf.GGMLQuantizationType[kind]
    source = weight.float().contiguous().view(-1, BLOCK).numpy()
    block, size = gguf.GGML_QUANT_SIZES[kind]
    stored = np.zeros(source.size // block * size, dtype=np.uint8)
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk(
        ctypes.c_int(int(kind)),
        source.ctypes.data_as(ctypes.c_void_p),
        stored.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int64(0),
        ctypes.c_int64(len(source)),
        ctypes.c_int64(BLOCK),
        None,
    )
    values = gguf.dequantize(stored.reshape(len(source), -1), kind)
    return torch.from_numpy(np.array(values)).view(weight.shape)
