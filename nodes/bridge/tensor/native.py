"""Products of NVFP4 and MXFP8 weights on tensor cores that multiply them (NVIDIA Blackwell).

Our tensors of these formats are the ones of ComfyUI's stock layouts, so the weight is handed to
those as it is: the activations are rounded to the same format and comfy-kitchen multiplies. That is
also what a stock ComfyUI does with the saved file. Elsewhere the weight is dequantized.
"""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import torch
import torch.nn.functional as F
from comfy.quant_ops import QuantizedTensor, get_layout_class

from ....quant_core.formats import Format, QuantizedWeight
from ....quant_core.formats.nvfp4 import LARGEST_CODE, LARGEST_SCALE

# A scale of zero would make NaN of tokens that are all zeros.
_SMALLEST_MAXIMUM = 1e-12

Operands = tuple[QuantizedTensor, QuantizedTensor]


def is_native(fmt: Format, device: torch.device) -> bool:
    """Whether ``device`` multiplies weights and activations of ``fmt``."""
    if device.type != "cuda" or not fmt.activations or fmt.kind not in _PRODUCTS:
        return False
    supported, _ = _PRODUCTS[fmt.kind]
    return supported(device)


def native_linear(
    x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
) -> torch.Tensor:
    """``x @ W.T + bias`` as ComfyUI's stock layout computes it, for x [..., K]."""
    _, operands = _PRODUCTS[weight.format.kind]
    tokens, stock = operands(x.reshape(-1, x.shape[-1]), weight)
    y = F.linear(tokens, stock, None if bias is None else bias.to(x.dtype))
    return y.reshape(*x.shape[:-1], weight.shape[0])


def _nvfp4(rows: torch.Tensor, weight: QuantizedWeight) -> Operands:
    layout = "TensorCoreNVFP4Layout"
    largest = rows.abs().amax().float().clamp(min=_SMALLEST_MAXIMUM)
    tokens = QuantizedTensor.from_float(
        rows, layout, scale=largest / (LARGEST_CODE * LARGEST_SCALE)
    )
    scales = {"scale": weight.scale_2, "block_scale": weight.scale}
    return tokens, _stock(layout, weight, rows.dtype, **scales)


def _mxfp8(rows: torch.Tensor, weight: QuantizedWeight) -> Operands:
    layout = "TensorCoreMXFP8Layout"
    scale = weight.scale.view(torch.float8_e8m0fnu)
    tokens = QuantizedTensor.from_float(rows, layout)
    return tokens, _stock(layout, weight, rows.dtype, scale=scale)


def _stock(
    layout: str, weight: QuantizedWeight, dtype: torch.dtype, **scales: torch.Tensor
) -> QuantizedTensor:
    params = get_layout_class(layout).Params(
        orig_dtype=dtype, orig_shape=tuple(weight.shape), **scales
    )
    return QuantizedTensor(weight.qdata, layout, params)


# By the kind of a format: what says whether a device multiplies it, and its two operands.
_PRODUCTS: dict[
    str, tuple[Callable[[torch.device], bool], Callable[[torch.Tensor, QuantizedWeight], Operands]]
] = {
    "nvfp4": (comfy.model_management.supports_nvfp4_compute, _nvfp4),
    "mxfp8": (comfy.model_management.supports_mxfp8_compute, _mxfp8),
}
