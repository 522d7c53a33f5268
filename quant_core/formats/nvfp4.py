"""NVFP4: E2M1 codes in blocks of 16 along K, an E4M3 scale a block, a float32 scale a tensor.

``w = code * scale * scale_2``. Tensors are those of ComfyUI's stock layout: two codes a byte, the
first in the high nibble, rows and columns padded to 16, block scales swizzled for the tensor cores.
Bits a weight: 4.5, and the padding.

A block's scale is searched. Its largest magnitude is code 6, as in comfy-kitchen's quantize_nvfp4
(whose bits these are without the search); or code 4, because no code lies between the two; or it
is clipped a little. Relative L2 of Gaussian weights: 0.0842, where 6 alone gives 0.0951.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from ..codes.minifloat import encode, looked_up, values_of
from ..codes.scale_search import best_scale
from ..codes.swizzle import (
    multiplies_blocks,
    pad_both,
    padded_to,
    swizzle,
    swizzled_shape,
    unswizzle,
)
from ..kernels import Coding
from .base import (
    WEIGHT_ONLY,
    Format,
    Grid,
    QuantizedWeight,
    absolute_maximum,
    register_format,
    row_blocks,
    snap_table,
    take_swizzled_rows,
)

BLOCK = 16
LARGEST_CODE, LARGEST_SCALE = 6.0, 448.0
STRETCHES = (1.0, 0.95, 1.5)
"""The scales that are tried, in units of the one that makes a block's largest magnitude code 6."""
_SMALLEST_MAXIMUM, _SMALLEST_ACTIVATION = 1e-30, 1e-10


@register_format
@dataclass(frozen=True)
class NVFP4(Format):
    """NVFP4 weights: 4-bit floating point codes in blocks of 16, with scales in FP8 and one in
    float32.

    activations: None, or "nvfp4" to round them too where tensor cores multiply the two. In ComfyUI
    those are Blackwell's; elsewhere, and here, ``linear`` dequantizes the weight either way.
    """

    kind: ClassVar[str] = "nvfp4"

    activations: str | None = None

    def __post_init__(self):
        if self.activations not in (None, self.kind):
            raise ValueError(f"No activations {self.activations!r} go with {self.kind}.")

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: [N, K]."""
        largest = absolute_maximum(weight, "per-tensor").clamp_(_SMALLEST_MAXIMUM)
        return self.quantize_with(weight, largest / (LARGEST_CODE * LARGEST_SCALE))

    def quantize_with(
        self,
        weight: torch.Tensor,
        scale_2: torch.Tensor,
        stretches: tuple[float, ...] = STRETCHES,
    ) -> QuantizedWeight:
        """Quantizes ``weight`` under a given scale of the tensor, float32 []; stretches: the block
        scales that are tried."""
        scale = _block_scales(pad_both(weight, BLOCK), scale_2, stretches)
        return self._store(weight, scale, scale_2, weight.dtype)

    def grid(self, weight: torch.Tensor, importance: torch.Tensor | None = None) -> Grid | None:
        n, k = weight.shape
        if k % BLOCK:
            return None
        largest = absolute_maximum(weight, "per-tensor").clamp_(_SMALLEST_MAXIMUM)
        scale_2 = largest / (LARGEST_CODE * LARGEST_SCALE)
        scale = _block_scales(pad_both(weight, BLOCK), scale_2, STRETCHES, importance)
        table = torch.tensor(sorted(set(values_of(2, 1))), device=weight.device)
        return Grid(
            scale[:n].float() * scale_2,
            None,
            snap_table(table),
            lambda values: self._store(values, scale, scale_2, weight.dtype),
        )

    def _store(
        self,
        values: torch.Tensor,
        scale: torch.Tensor,
        scale_2: torch.Tensor,
        dtype: torch.dtype,
    ) -> QuantizedWeight:
        """``values`` [N, K] in the nearest codes under block scales of the padded matrix."""
        padded = pad_both(values, BLOCK)
        high, wide = padded.shape
        qdata = torch.empty(high, wide // 2, dtype=torch.uint8, device=values.device)
        for rows in row_blocks(padded):
            groups = padded[rows].float().unflatten(1, (-1, BLOCK))
            step = (scale[rows].float() * scale_2).unsqueeze(-1)
            # Weights that are all nearly zero have a scale of zero, and codes of zero.
            scaled = torch.where(step == 0, 0.0, groups / step)
            codes = encode(scaled, 2, 1).flatten(1)
            qdata[rows] = (codes[:, ::2] << 4) | codes[:, 1::2]
        shape = tuple(values.shape)
        return QuantizedWeight(self, qdata, swizzle(scale), None, shape, dtype, scale_2=scale_2)

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        n, k = weight.shape
        high, half = weight.qdata.shape
        scale = unswizzle(weight.scale, high, 2 * half // BLOCK)
        out = torch.empty(high, 2 * half, dtype=dtype, device=weight.qdata.device)
        for rows in row_blocks(out):
            packed = weight.qdata[rows]
            codes = torch.stack((packed >> 4, packed & 15), dim=-1).flatten(1)
            step = (scale[rows].float() * weight.scale_2).unsqueeze(-1)
            values = looked_up(codes, values_of(2, 1)).unflatten(1, (-1, BLOCK)).mul_(step)
            out[rows] = values.flatten(1)
        return out[:n, :k].contiguous()

    @property
    def coding(self) -> Coding:
        return Coding(
            4,
            "table",
            "swizzled",
            BLOCK,
            scale_values="e4m3",
            packing="high first",
            table=values_of(2, 1),
        )

    def take_rows(self, weight: QuantizedWeight, rows: slice) -> QuantizedWeight:
        return take_swizzled_rows(weight, rows, 2 * weight.qdata.shape[1] // BLOCK, BLOCK)

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        n, k = shape
        high, wide = padded_to(n, BLOCK), padded_to(k, BLOCK)
        return {
            "qdata": (torch.uint8, (high, wide // 2)),
            "scale": (torch.float8_e4m3fn, swizzled_shape(high, wide // BLOCK)),
            "scale_2": (torch.float32, ()),
        }

    def dynamic(self, shape: tuple[int, ...]) -> Format | None:
        return replace(self, activations=self.kind)

    def weight_only(self) -> Format:
        return replace(self, activations=None)

    def stock_marker(self) -> dict[str, Any]:
        return {"format": "nvfp4"} | ({} if self.activations else {WEIGHT_ONLY: True})

    def kernel(self, device: torch.device) -> str:
        if self.activations is None or not multiplies_blocks(device):
            return super().kernel(device)
        return "nvfp4 x nvfp4 matmul in ComfyUI (comfy-kitchen)"

    def __str__(self) -> str:
        return "nvfp4 blocks of 16" + (", nvfp4 activations" if self.activations else "")


def _block_scales(
    padded: torch.Tensor,
    scale_2: torch.Tensor,
    stretches: tuple[float, ...],
    importance: torch.Tensor | None = None,
) -> torch.Tensor:
    """The scale of each block of ``padded``, E4M3 [N, K / BLOCK]. importance: float32 [K], what
    the squared error of a column counts."""
    high, wide = padded.shape
    weights = None if importance is None else importance.sqrt().view(-1, BLOCK)
    scale = torch.empty(high, wide // BLOCK, dtype=torch.float8_e4m3fn, device=padded.device)
    for rows in row_blocks(padded):
        values = padded[rows].float().unflatten(1, (-1, BLOCK))
        scales = _scales(values, scale_2, stretches)
        scale[rows] = best_scale(values, scales, _rounded, scale_2, weights)
    return scale


def _scales(
    blocks: torch.Tensor, scale_2: torch.Tensor, stretches: tuple[float, ...]
) -> Iterator[torch.Tensor]:
    """The scales to try for float32 ``blocks`` [..., BLOCK]: float32 that E4M3 holds."""
    largest = blocks.abs().amax(dim=-1) / LARGEST_CODE / scale_2
    for stretch in stretches:
        yield (largest * stretch).clamp_(max=LARGEST_SCALE).to(torch.float8_e4m3fn).float()


def rounded_activations(x: torch.Tensor) -> torch.Tensor:
    """Activations x [rows, K] to the nearest of NVFP4 and back, under the scale that comfy-kitchen
    gives the tensor: its largest magnitude is the largest code."""
    if not x.numel():
        return x
    largest = x.abs().amax().float().clamp_min(_SMALLEST_ACTIVATION)
    return rounded_blocks(x.float(), largest / (LARGEST_CODE * LARGEST_SCALE)).to(x.dtype)


def rounded_blocks(values: torch.Tensor, scale_2: torch.Tensor) -> torch.Tensor:
    """float32 ``values`` [rows, K], K in sixteens, to the nearest of NVFP4 and back, as activations
    are rounded: each block's largest magnitude is code 6. scale_2: float32 []."""
    groups = values.unflatten(-1, (-1, BLOCK))
    step = next(_scales(groups, scale_2, (1.0,))).unsqueeze(-1) * scale_2
    scaled = torch.where(step == 0, 0.0, groups / step)
    return _rounded(scaled).mul_(step).flatten(-2)


def _rounded(scaled: torch.Tensor) -> torch.Tensor:
    """The nearest values of E2M1: in halves to 2, whole to 4, in twos to 6."""
    # The exponent's bits alone are the power of two below, 1 to 4 of which are twice the unit.
    power = (scaled.view(torch.int32) & 0x7F800000).view(torch.float32)
    unit = power.clamp_(1.0, 4.0).mul_(0.5)
    return (scaled / unit).round_().mul_(unit).clamp_(-LARGEST_CODE, LARGEST_CODE)
