"""Products of NVFP4 and MXFP8 weights on tensor cores that multiply them (NVIDIA Blackwell).

Our tensors of these formats are the ones of ComfyUI's stock layouts, so the weight is handed to
those as it is: the activations are rounded to the same format and comfy-kitchen multiplies. That is
also what a stock ComfyUI does with the saved file. Elsewhere the weight is dequantized.
"""

from __future__ import annotations

import comfy.model_management
import torch
import torch.nn.functional as F
from comfy.quant_ops import QuantizedTensor, get_layout_class

from ....quant_core.formats import MXFP8, NVFP4, Format, QuantizedWeight
from ....quant_core.formats.nvfp4 import LARGEST_CODE, LARGEST_SCALE

_NVFP4, _MXFP8 = "TensorCoreNVFP4Layout", "TensorCoreMXFP8Layout"
# A scale of zero would make NaN of tokens that are all zeros.
_SMALLEST_MAXIMUM = 1e-12


def is_native(fmt: Format, device: torch.device) -> bool:
    """Whether ``device`` multiplies weights and activations of ``fmt``."""
    if device.type != "cuda":
        return False
    if isinstance(fmt, NVFP4):
        return bool(fmt.activations) and comfy.model_management.supports_nvfp4_compute(device)
    if isinstance(fmt, MXFP8):
        return bool(fmt.activations) and comfy.model_management.supports_mxfp8_compute(device)
    return False


def native_linear(
    x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
) -> torch.Tensor:
    """``x @ W.T + bias`` as ComfyUI's stock layout computes it, for x [..., K]."""
    rows = x.reshape(-1, x.shape[-1])
    if isinstance(weight.format, NVFP4):
        largest = rows.abs().amax().float().clamp(min=_SMALLEST_MAXIMUM)
        scale = largest / (LARGEST_CODE * LARGEST_SCALE)
        tokens = QuantizedTensor.from_float(rows, _NVFP4, scale=scale)
        stock = _stock(_NVFP4, weight, x.dtype, scale=weight.scale_2, block_scale=weight.scale)
    else:
        tokens = QuantizedTensor.from_float(rows, _MXFP8)
        stock = _stock(_MXFP8, weight, x.dtype, scale=weight.scale.view(torch.float8_e8m0fnu))
    y = F.linear(tokens, stock, None if bias is None else bias.to(x.dtype))
    return y.reshape(*x.shape[:-1], weight.shape[0])


def _stock(
    layout: str, weight: QuantizedWeight, dtype: torch.dtype, **scales: torch.Tensor
) -> QuantizedTensor:
    params = get_layout_class(layout).Params(
        orig_dtype=dtype, orig_shape=tuple(weight.shape), **scales
    )
    return QuantizedTensor(weight.qdata, layout, params)
