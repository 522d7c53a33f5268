"""Products that comfy-kitchen multiplies for us, where it is there and quicker.

Our tensors of these formats are the ones of ComfyUI's stock layouts, so the weight is handed to
those as it is: that is also what a stock ComfyUI does with the saved file. NVFP4 and MXFP8 go there
on tensor cores that multiply them (NVIDIA Blackwell). INT8, rotated or not, goes there where it
beats our own kernels by the clock (``contest``). Elsewhere the format's own ``linear`` runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import comfy.model_management
import comfy_kitchen
import torch
import torch.nn.functional as F
from comfy.quant_ops import QuantizedTensor, get_layout_class

from ....quant_core.formats import Format, QuantizedWeight
from ....quant_core.formats.nvfp4 import LARGEST_CODE, LARGEST_SCALE
from ....quant_core.kernels import add_low_rank
from . import contest

# A scale of zero would make NaN of tokens that are all zeros.
_SMALLEST_MAXIMUM = 1e-12
# What comfy-kitchen's kernels of four bits by four take.
_SIXTEEN_BITS = (torch.bfloat16, torch.float16)

Operands = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Product:
    """How comfy-kitchen multiplies one kind of format. operands: the rows of activations and a
    weight as ComfyUI's layouts have them. runs: whether a format's products belong there for these
    rows. adds_branch: the weight's low-rank branch is not among the operands."""

    operands: Callable[[torch.Tensor, QuantizedWeight], Operands]
    runs: Callable[[Format, torch.Tensor], bool]
    adds_branch: bool = False


def is_native(fmt: Format, x: torch.Tensor) -> bool:
    """Whether comfy-kitchen multiplies activations ``x`` [..., K] by weights of ``fmt``."""
    if x.device.type != "cuda" or _key(fmt) not in _PRODUCTS:
        return False
    return _PRODUCTS[_key(fmt)].runs(fmt, x)


def native_linear(
    x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
) -> torch.Tensor:
    """``x @ W.T + bias`` as ComfyUI's stock layout computes it, for x [..., K]."""
    product, rows = _PRODUCTS[_key(weight.format)], x.reshape(-1, x.shape[-1])
    tokens, stock = product.operands(rows, weight)
    bias = None if bias is None else bias.to(x.dtype)
    # Codes that are padded with rows give as many columns, for which the bias is too short: PyTorch
    # refuses it with a ValueError, for which comfy-kitchen does not take its slower way.
    padded = len(weight.qdata) != weight.shape[0]
    y = F.linear(tokens, stock, None if padded else bias)
    if padded and bias is not None:
        y = y + bias
    if product.adds_branch:
        y = add_low_rank(y, rows, weight.proj_up.to(x.dtype), weight.proj_down.to(x.dtype).t())
    return y.reshape(*x.shape[:-1], weight.shape[0])


def has_compiled_int8() -> bool:
    """Whether comfy-kitchen's compiled kernels for NVIDIA GPUs are in use."""
    state = comfy_kitchen.list_backends().get("cuda", {})
    return bool(state.get("available")) and not state.get("disabled")


def native_kernel(fmt: Format, device: torch.device) -> str | None:
    """What multiplies ``fmt`` in comfy-kitchen on ``device``, in words; None where it does not."""
    if device.type != "cuda" or _key(fmt) not in _CONTESTED:
        return None
    if not contest.wins(fmt, device, native_linear):
        return None
    rounded = fmt.activations
    what = f"{rounded} x {rounded} matmul" if fmt.activations else "dequantize + matmul"
    return f"{what} in ComfyUI (comfy-kitchen)"


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


def _int8(rows: torch.Tensor, weight: QuantizedWeight) -> Operands:
    stock = _stock("TensorWiseINT8Layout", weight, rows.dtype, scale=weight.scale)
    return rows, stock if weight.format.activations else stock.dequantize()


def _int8_convrot(rows: torch.Tensor, weight: QuantizedWeight) -> Operands:
    rotation = {"convrot": True, "convrot_groupsize": weight.format.rotation}
    stock = _stock("TensorWiseINT8Layout", weight, rows.dtype, scale=weight.scale, **rotation)
    return rows, stock if weight.format.activations else stock.dequantize()


def _rotated_groups(rows: torch.Tensor, weight: QuantizedWeight) -> Operands:
    fmt = weight.format
    stock = _stock(
        "AsymW4A8Int8Layout",
        weight,
        rows.dtype,
        scale=weight.scale,
        s_channel=weight.scale_2,
        codebook=weight.codebook,
        group_size=fmt.group_size,
        convrot_groupsize=fmt.rotation,
    )
    return rows, stock if fmt.activations else stock.dequantize()


def _key(fmt: Format) -> str:
    """The entry of ``_PRODUCTS`` for ``fmt``."""
    residual = getattr(fmt, "residual", None)
    return fmt.kind if residual is None else f"{fmt.kind} {residual}"


def _svdquant_int4(rows: torch.Tensor, weight: QuantizedWeight) -> Operands:
    parts = {"scale": weight.scale, "smooth_factor": weight.smooth_factor}
    parts |= {"proj_up": weight.proj_up, "proj_down": weight.proj_down}
    if weight.format.rotation > 1:
        rows, down = weight.format.smoothed(rows, weight)
        parts["smooth_factor"] = torch.ones_like(weight.smooth_factor)
        parts["proj_down"] = down.t().contiguous()
    parts = {name: part.to(rows.dtype) for name, part in parts.items()}
    return rows, _stock("TensorCoreSVDQuantW4A4Layout", weight, rows.dtype, **parts)


def _svdquant_nvfp4(rows: torch.Tensor, weight: QuantizedWeight) -> Operands:
    return _nvfp4(rows / weight.smooth_factor.to(rows.dtype), weight.format.residual_of(weight))


def _nvfp4_smoothed(rows: torch.Tensor, weight: QuantizedWeight) -> Operands:
    return _nvfp4(weight.format.smoothed(rows, weight), weight.format.residual_of(weight))


def _stock(
    layout: str, weight: QuantizedWeight, dtype: torch.dtype, **params: object
) -> QuantizedTensor:
    """KeyError where this ComfyUI does not know ``layout``."""
    cls = get_layout_class(layout).Params
    return QuantizedTensor(
        weight.qdata, layout, cls(orig_dtype=dtype, orig_shape=tuple(weight.shape), **params)
    )


def _on_tensor_cores(
    supports: Callable[[torch.device], bool], fmt: Format, x: torch.Tensor
) -> bool:
    return bool(fmt.activations) and supports(x.device)


def _if_quicker(fmt: Format, x: torch.Tensor) -> bool:
    return contest.is_won(fmt, x, native_linear)


def _if_four_bits_are_quicker(fmt: Format, x: torch.Tensor) -> bool:
    return bool(fmt.activations) and x.dtype in _SIXTEEN_BITS and _if_quicker(fmt, x)


# By the kind of a format.
_CONTESTED = {
    "int8": Product(_int8, _if_quicker),
    "int8_convrot": Product(_int8_convrot, _if_quicker),
    "rotated_groups": Product(_rotated_groups, _if_quicker),
    "svdquant int4": Product(_svdquant_int4, _if_four_bits_are_quicker),
    "svdquant nvfp4": Product(_svdquant_nvfp4, _if_four_bits_are_quicker, adds_branch=True),
}
_PRODUCTS: dict[str, Product] = {
    "nvfp4": Product(
        _nvfp4, partial(_on_tensor_cores, comfy.model_management.supports_nvfp4_compute)
    ),
    "nvfp4_smoothed": Product(
        _nvfp4_smoothed, partial(_on_tensor_cores, comfy.model_management.supports_nvfp4_compute)
    ),
    "mxfp8": Product(
        _mxfp8, partial(_on_tensor_cores, comfy.model_management.supports_mxfp8_compute)
    ),
    **_CONTESTED,
}
