"""SVDQuant: a smoothed weight as a low-rank branch in 16 bits and a residual of four.

``W = residual / smooth_factor + proj_up @ proj_down.T`` (Li et al. 2024, arXiv 2411.05007). What
reaches the layer is divided by smooth_factor and then rounded to four bits too, where a device
multiplies four bits by four; the branch multiplies it as it is. The residual is INT4 in groups of
64, its tensors those of comfy-kitchen's ``TensorCoreSVDQuantW4A4Layout``: codes int8 [N, K / 2] in
two's complement, the first in the low nibble; scale bfloat16 [K / 64, N]. Or it is NVFP4.
proj_down bfloat16 [K, rank], proj_up bfloat16 [N, rank], smooth_factor bfloat16 [K].
Bits a weight: 4.25 or 4.5, and 16 rank (1/N + 1/K).

The residual may be rotated after smoothing, weights and activations alike (see ``rotation``): that
spreads what is large in one row of activations alone, which no smoothing of columns reaches. With
INT4 it takes the mean error of four MiniLM layers from 0.091 to 0.078; with NVFP4, whose blocks of
16 have few outliers each, it gains nothing.

``quantize`` knows no activations and smooths nothing; ``rounding.low_rank_branch`` does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ..codes.rotation import is_size, rotate
from ..kernels import stored_linear
from .base import Format, QuantizedWeight, absolute_maximum, register_format
from .int_n import IntN
from .nvfp4 import BLOCK, NVFP4, rounded_activations

GROUP = 64
RESIDUALS = ("int4", "nvfp4")
LARGEST_RANK = 512
# Of the search for singular vectors: columns beyond the rank, and passes.
_MORE, _PASSES = 16, 3
_RESIDUALS: dict[str, Format] = {"int4": IntN(4, GROUP, symmetric=True), "nvfp4": NVFP4()}
# Turns codes about the middle of 16 into two's complement, two a byte; and back.
_SIGNS = 0x88
_LARGEST_ACTIVATION, _SMALLEST = 7, 1e-10


@register_format
@dataclass(frozen=True)
class SvdQuant(Format):
    """residual: "int4" or "nvfp4". rank: of the branch, 1 to 512. activations: None, or the same as
    residual, to round them where tensor cores multiply the two. rotation: columns of the residual
    that are rotated together, a power of 4; 1 for none."""

    kind: ClassVar[str] = "svdquant"
    needs_calibration: ClassVar[bool] = True
    copies: ClassVar[int] = 5

    residual: str = "int4"
    rank: int = 32
    activations: str | None = None
    rotation: int = 1

    def __post_init__(self):
        if self.residual not in RESIDUALS or not 1 <= self.rank <= LARGEST_RANK:
            raise ValueError(f"No SVDQuant of {self.residual!r} and rank {self.rank}.")
        if self.activations not in (None, self.residual):
            raise ValueError(f"No activations {self.activations!r} go with {self.residual}.")
        if self.rotation != 1 and not is_size(self.rotation):
            raise ValueError(f"No rotation of {self.rotation}: it is a power of 4.")

    @property
    def group_size(self) -> int:
        """How many weights along K share a scale."""
        return GROUP if self.residual == "int4" else BLOCK

    @property
    def residual_format(self) -> Format:
        """What rounds the residual, and decodes it."""
        return _RESIDUALS[self.residual]

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: [N, K] with K divisible by 64 for INT4."""
        absolute_maximum(weight, "per-tensor")  # NaN and infinity
        values = weight.float()
        up, down = self.branch_of(values)
        rest = self.in_own_basis(values - up.float() @ down.float().t())
        smooth = torch.ones(weight.shape[1], dtype=torch.bfloat16, device=weight.device)
        return self.assemble(self.residual_format.quantize(rest), smooth, up, down, weight.dtype)

    def in_own_basis(self, matrix: torch.Tensor) -> torch.Tensor:
        """Smoothed weights or activations [..., K] as the residual is rounded: float32."""
        return self._turned(matrix.float())

    def _turned(self, matrix: torch.Tensor) -> torch.Tensor:
        """``matrix`` [..., K] rotated, which also undoes it."""
        return rotate(matrix, self.rotation) if self.rotation > 1 else matrix

    def branch_of(self, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The best proj_up and proj_down for ``matrix``, float32 [N, K]: bfloat16."""
        exponent = matrix.abs().amax().clamp_min(1e-37).log2().floor()
        # Codes of a weight of any magnitude are the same.
        up, down = leading(matrix * torch.exp2(-exponent), self.rank)
        up = up * torch.exp2(exponent)
        up = up.masked_fill((matrix == 0).all(1, keepdim=True), 0.0)
        return up.bfloat16(), down.bfloat16().contiguous()

    def assemble(
        self,
        residual: QuantizedWeight,
        smooth: torch.Tensor,
        up: torch.Tensor,
        down: torch.Tensor,
        dtype: torch.dtype,
    ) -> QuantizedWeight:
        """The weight of ``residual`` [N, K] of the smoothed weight, in ``residual_format``, and a
        branch up [N, rank], down [K, rank]; smooth [K], of bfloat16's values."""
        parts = dict(residual.tensors)
        if self.residual == "int4":
            parts["qdata"] = (parts["qdata"] ^ _SIGNS).view(torch.int8)
            parts["scale"] = parts["scale"].t().contiguous()
        parts |= {"smooth_factor": smooth.bfloat16(), "proj_up": up, "proj_down": down}
        return QuantizedWeight.of_parts(self, parts, residual.shape, dtype)

    def residual_of(self, weight: QuantizedWeight) -> QuantizedWeight:
        """The residual of the smoothed weight as a weight of its own."""
        parts = {"qdata": weight.qdata, "scale": weight.scale}
        if self.residual == "int4":
            parts["qdata"] = weight.qdata.view(torch.uint8) ^ _SIGNS
            parts["scale"] = weight.scale.t().contiguous()
        else:
            parts["scale_2"] = weight.scale_2
        return QuantizedWeight.of_parts(self.residual_format, parts, weight.shape, weight.dtype)

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        values = self._turned(self.residual_of(weight).dequantize(torch.float32))
        values = values.div_(weight.smooth_factor)
        return values.addmm_(weight.proj_up.float(), weight.proj_down.float().t()).to(dtype)

    def linear(
        self, x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        given, down = self.smoothed(x, weight)
        rest = self.residual_of(weight)
        return stored_linear(given, rest, bias, weight.proj_up.to(x.dtype), down)

    def smoothed(
        self, x: torch.Tensor, weight: QuantizedWeight
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the residual is given of x [..., K], and the branch's factor [rank, K] for that: in
        the dtype of x."""
        smooth = weight.smooth_factor.to(x.dtype)
        down = (weight.proj_down.to(x.dtype) * smooth.unsqueeze(1)).t()
        return self._turned(x / smooth), self._turned(down)

    def emulated(
        self, x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        thin = rows.float() @ weight.proj_down.float()
        given = self.round_activations(self._turned(rows / weight.smooth_factor.to(x.dtype)))
        y = given.float() @ self.residual_of(weight).dequantize(torch.float32).t()
        y = y.addmm_(thin, weight.proj_up.float().t())
        y = y if bias is None else y + bias.float()
        return y.to(x.dtype).view(*x.shape[:-1], weight.shape[0])

    def round_activations(self, x: torch.Tensor) -> torch.Tensor:
        """Activations x [rows, K] that the residual is given, rounded to four bits as the device
        does, and back; the same where this format leaves activations alone."""
        if self.activations is None or not x.numel():
            return x
        if self.residual == "nvfp4":
            return rounded_activations(x)
        groups = x.unflatten(-1, (-1, GROUP))
        step = groups.abs().amax(-1, keepdim=True).clamp_min(_SMALLEST) / _LARGEST_ACTIVATION
        codes = (groups / step).round().clamp(-_LARGEST_ACTIVATION, _LARGEST_ACTIVATION)
        return (codes * step).flatten(-2)

    def with_low_rank(
        self, weight: QuantizedWeight, up: torch.Tensor, down: torch.Tensor
    ) -> QuantizedWeight:
        return replace(
            weight,
            proj_up=torch.cat((weight.proj_up.to(up.dtype), up), dim=1),
            proj_down=torch.cat((weight.proj_down.to(down.dtype), down.t()), dim=1),
        )

    def linear_with_low_rank(
        self,
        x: torch.Tensor,
        weight: QuantizedWeight,
        bias: torch.Tensor | None,
        up: torch.Tensor,
        down: torch.Tensor,
    ) -> torch.Tensor:
        return self.linear(x, self.with_low_rank(weight, up, down), bias)

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        n, k = shape
        found = self.residual_format.parts(shape)
        if self.residual == "int4":
            found = {
                "qdata": (torch.int8, found["qdata"][1]),
                "scale": (torch.bfloat16, (k // GROUP, n)),
            }
        return found | {
            "smooth_factor": (torch.bfloat16, (k,)),
            "proj_up": (torch.bfloat16, (n, self.rank)),
            "proj_down": (torch.bfloat16, (k, self.rank)),
        }

    def with_rank(self, rank: int) -> Format:
        if rank or self.residual != "nvfp4":
            return replace(self, rank=rank)
        from .smoothed_nvfp4 import SmoothedNVFP4  # it builds on what is here

        return SmoothedNVFP4(self.activations)

    def storable_smoothing(self, smooth: torch.Tensor) -> torch.Tensor:
        """The float32 [K] nearest to ``smooth`` that are bfloat16."""
        return smooth.bfloat16().float()

    def weight_only(self) -> Format:
        return replace(self, activations=None)

    @property
    def product_kind(self) -> str | None:
        return None

    def __str__(self) -> str:
        what = "int4 groups of 64" if self.residual == "int4" else "nvfp4 blocks of 16"
        activations = f", {self.activations} activations" if self.activations else ""
        rotated = f", rotated by {self.rotation}" if self.rotation > 1 else ""
        return f"svdquant {what}{rotated}, rank {self.rank}{activations}"


def leading(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """U S [N, rank] and V [K, rank] of the largest singular values of ``matrix``, float32 [N, K];
    columns of zeros where the matrix has fewer."""
    count = min(rank + _MORE, *matrix.shape)
    if count * 2 < min(matrix.shape):
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(matrix.shape[1], count, generator=generator).to(matrix.device)
        basis = torch.linalg.qr(matrix @ probe).Q
        for _ in range(_PASSES):
            basis = torch.linalg.qr(matrix.t() @ basis).Q
            basis = torch.linalg.qr(matrix @ basis).Q
        left, sizes, right = torch.linalg.svd(basis.t() @ matrix, full_matrices=False)
        left = basis @ left
    else:
        left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    missing = (0, max(rank - len(sizes), 0))
    up, down = left[:, :rank] * sizes[:rank], right[:rank].t()
    return torch.nn.functional.pad(up, missing), torch.nn.functional.pad(down, missing)
