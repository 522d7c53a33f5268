"""W4A8 and W6A8: rotated weights of 4 or 6 bits in groups of 16, decoded to INT8 for the product.

``w = round(level * scale) * scale_2`` in the rotated basis: the round is the INT8 code that meets
INT8 activations. level: of a table of 16 (W4A8), or an integer from -31 to 31 (W6A8). scale: E4M3,
one a group. scale_2: float32, one a row. These are the tensors of ComfyUI's ``asym_w4a8_int8``: two
codes a byte, the first in the low nibble; at 6 bits a second plane of K / 4 bytes follows in each
row with the two high bits of four codes. Bits a weight: 4.5 and 6.5, and 32 a row.

A group's scale is searched among the E4M3 numbers near the one that its largest magnitude asks for,
and each code among the INT8 levels that it decodes to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from ..codes.level_table import LevelTable
from ..codes.minifloat import looked_up
from ..codes.nibble_planes import pack, unpack
from ..codes.rotation import SIZES, rotate
from ..codes.scale_search import least
from ..kernels import Coding
from ..kernels.weight_only import decoded_codes
from .base import (
    WEIGHT_ONLY,
    Format,
    Grid,
    QuantizedWeight,
    register_format,
    require_finite,
    row_blocks,
)
from .base.rotated_grid import RotatedGrid
from .int8_convrot import require_rotated, rotated_kernel, rotated_linear

# fmt: off
CODEBOOK = (  # Lloyd-Max levels of Gaussian groups; comfy-kitchen decodes quickest under these
    -0.980602, -0.794529, -0.638165, -0.500986, -0.377321, -0.263187, -0.155210, -0.050720,
    0.052541, 0.156985, 0.265284, 0.379533, 0.502636, 0.638953, 0.794876, 0.980671,
)
# fmt: on
_GRID = 127.0
STEPS = (0, -1, 1, 2)
"""In E4M3 numbers from the scale that makes the largest magnitude the largest level."""
_SMALLEST_SCALE = 1e-30
_BINS = 1024


@register_format
@dataclass(frozen=True)
class RotatedGroups(Format):
    """bits: 4 or 6. rotation: a power of 4. codebook: whether the weight brings a table of levels;
    at 4 bits without one they are integers from -8 to 7. scale_dtype: "float8_e4m3fn" or
    "float32". activations: None (computed in the input's dtype) or "int8" (rotated and quantized
    per row at run time)."""

    kind: ClassVar[str] = "rotated_groups"
    entries: ClassVar[dict[str, str]] = {"scale": "weight_s_rel", "scale_2": "weight_s_channel"}

    bits: int = 4
    group_size: int = 16
    rotation: int = SIZES[0]
    codebook: bool = True
    scale_dtype: str = "float8_e4m3fn"
    activations: str | None = None

    def __post_init__(self):
        require_rotated(self.rotation, self.activations)
        if self.bits not in (4, 6) or (self.bits == 6 and self.codebook):
            raise ValueError(f"No rotated groups of {self.bits} bits, codebook {self.codebook}.")
        if self.group_size < 4 or (16 % self.group_size and self.group_size % 16):
            raise ValueError(f"No groups of {self.group_size}: use 4, 8 or a multiple of 16.")
        if self.scale_dtype not in ("float8_e4m3fn", "float32"):
            raise ValueError(f"No scales of {self.scale_dtype!r}: use float8_e4m3fn or float32.")

    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """weight: [N, K], K a multiple of the rotation, of the group and of 32."""
        shape = tuple(weight.shape)
        parts = {
            part: torch.empty(size, dtype=dtype, device=weight.device)
            for part, (dtype, size) in self.parts(shape).items()
        }
        if self.codebook:
            parts["codebook"].copy_(torch.tensor(CODEBOOK))
        for rows in row_blocks(weight):
            values = self.in_own_basis(weight[rows])
            channel = _channel(values)
            groups = values.div_(channel[:, None]).unflatten(1, (-1, self.group_size))
            scale, codes = self._searched(groups)
            parts["scale_2"][rows], parts["scale"][rows] = channel, scale
            parts["qdata"][rows] = pack(codes.flatten(1), self.bits)
        return QuantizedWeight.of_parts(self, parts, shape, weight.dtype)

    def in_own_basis(self, matrix: torch.Tensor) -> torch.Tensor:
        return rotate(matrix.float(), self.rotation)

    def grid(self, weight: torch.Tensor, importance: torch.Tensor | None = None) -> Grid | None:
        n, k = weight.shape
        weights = None if importance is None else importance.view(-1, self.group_size)
        channel = _channel(weight)
        scale = torch.empty(n, k // self.group_size, device=weight.device)
        for rows in row_blocks(weight):
            values = weight[rows] / channel[rows, None]
            groups = values.unflatten(1, (-1, self.group_size))
            scale[rows], _ = self._searched(groups, weights)
        return RotatedGrid(scale, channel, self._on_grid, self._stored)

    def _stored(
        self, values: torch.Tensor, scale: torch.Tensor, channel: torch.Tensor
    ) -> QuantizedWeight:
        """``values`` [N, K], rotated, in the nearest codes under scales that are given."""
        qdata = torch.empty(
            len(values), values.shape[1] * self.bits // 8, dtype=torch.int8, device=values.device
        )
        for rows in row_blocks(values):
            groups = (values[rows] / channel[rows, None]).unflatten(1, (-1, self.group_size))
            codes, _ = self._nearest(groups, scale[rows, :, None])
            qdata[rows] = pack(codes.flatten(1), self.bits)
        parts = {"qdata": qdata, "scale": scale.to(getattr(torch, self.scale_dtype))}
        parts["scale_2"] = channel
        if self.codebook:
            parts["codebook"] = torch.tensor(CODEBOOK, device=values.device)
        return QuantizedWeight.of_parts(self, parts, tuple(values.shape), values.dtype)

    def _searched(
        self, groups: torch.Tensor, weights: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``groups`` [N, groups, group_size], in INT8 units -> scales and codes. weights: what
        each squared error counts."""

        def candidate(scale: torch.Tensor) -> tuple[torch.Tensor, ...]:
            codes, error = self._nearest(groups, scale[..., None])
            if weights is not None:
                lost = self._grid(codes, scale[..., None]) - groups
                error = lost.square_().mul_(weights).sum(-1)
            return error.unsqueeze(-1), scale.unsqueeze(-1), codes

        scale, codes = least(map(candidate, self._scales(groups.abs().amax(-1))))
        return scale.squeeze(-1), codes

    def _scales(self, largest: torch.Tensor) -> Iterator[torch.Tensor]:
        """The scales to try for groups whose largest magnitudes are ``largest``: float32, each a
        number of ``scale_dtype``."""
        wanted = largest / _levels(self)[-1]
        if self.scale_dtype == "float32":
            return (wanted * (1 + step / 12) for step in STEPS)
        octets = wanted.to(torch.float8_e4m3fn).view(torch.uint8).int()
        return (
            (octets + step).clamp(0, 0x7E).to(torch.uint8).view(torch.float8_e4m3fn).float()
            for step in STEPS
        )

    def _nearest(
        self, groups: torch.Tensor, scale: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The codes, uint8, that decode nearest to ``groups``, and each group's squared error."""
        levels = _levels(self)
        first, last = (1, len(levels)) if self.bits == 6 else (0, len(levels) - 1)
        scaled = groups / scale.clamp(min=_SMALLEST_SCALE)
        codes = _nearest_level(scaled, levels).add_(first)
        values = self._grid(codes, scale)
        # INT8's grid may lie so that the next level is nearer.
        beside = (codes + (groups - values).sign_()).clamp_(first, last)
        others = self._grid(beside, scale)
        error, other = (values - groups).square_(), (others - groups).square_()
        better = other < error
        codes = torch.where(better, beside, codes).to(torch.uint8)
        return codes, torch.where(better, other, error).sum(-1)

    def _on_grid(self, groups: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """The values nearest to ``groups`` that have a code, in INT8 units."""
        return self._grid(self._nearest(groups, scale)[0], scale)

    def _grid(self, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """What ``codes`` decode to, in INT8 units. float32."""
        if self.codebook:
            values = looked_up(codes, CODEBOOK)
        else:
            values = codes.float() - 2 ** (self.bits - 1)
        return (values * scale).round_().clamp_(-_GRID, _GRID)

    def _whole_coding(self) -> Coding:
        return Coding(
            self.bits,
            "table" if self.codebook else "integer",
            "group",
            self.group_size,
            scale_values="e4m3" if self.scale_dtype == "float8_e4m3fn" else "float",
            zero="none" if self.codebook else "middle",
            packing="planes" if self.bits == 6 else "low first",
            whole=True,
        )

    def int8_codes(self, weight: QuantizedWeight) -> torch.Tensor:
        """The INT8 weight [N, K] that the product takes; scale_2 is its scale."""
        decoded = decoded_codes(weight, self._whole_coding())
        if decoded is not None:
            return decoded
        n, k = weight.shape
        out = torch.empty(n, k, dtype=torch.int8, device=weight.qdata.device)
        for rows in row_blocks(out):
            codes = unpack(weight.qdata[rows], self.bits)
            if self.codebook:
                values = weight.codebook.float().index_select(0, codes.reshape(-1).int())
            else:
                values = codes.float() - 2 ** (self.bits - 1)
            steps = weight.scale[rows].float().unsqueeze(-1)
            values = values.view(-1, k // self.group_size, self.group_size) * steps
            out[rows] = values.round_().clamp_(-_GRID, _GRID).flatten(1)
        return out

    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        codes = self.int8_codes(weight)
        out = torch.empty(weight.shape, dtype=dtype, device=codes.device)
        for rows in row_blocks(out):
            out[rows] = rotate(codes[rows].float() * weight.scale_2[rows, None], self.rotation)
        return out

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        n, k = shape
        table = {"codebook": (torch.float32, (len(CODEBOOK),))} if self.codebook else {}
        return {
            "qdata": (torch.int8, (n, k * self.bits // 8)),
            "scale": (getattr(torch, self.scale_dtype), (n, k // self.group_size)),
            "scale_2": (torch.float32, (n,)),
            **table,
        }

    def linear(
        self, x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        if self.activations is None:
            return super().linear(x, weight, bias)
        return rotated_linear(x, self.int8_codes(weight), weight.scale_2, bias, self.rotation)

    def dynamic(self, shape: tuple[int, ...]) -> Format | None:
        return replace(self, activations="int8")

    def weight_only(self) -> Format:
        return replace(self, activations=None)

    def in_rows(self, weight: QuantizedWeight) -> QuantizedWeight:
        return weight

    def stock_marker(self) -> dict[str, Any]:
        marker = {
            "format": "asym_w4a8_int8",
            "group_size": self.group_size,
            "convrot_groupsize": self.rotation,
        }
        return marker | ({} if self.activations else {WEIGHT_ONLY: True})

    @property
    def stock_needs(self) -> str:
        if self.bits == 4:
            return "ComfyUI 0.31.0 or newer"
        # ComfyUI 0.33.0 pins comfy-kitchen 0.2.31, which takes the wider rows for an error.
        return "a ComfyUI with comfy-kitchen 0.2.36 or newer (0.33.0 has an older one)"

    def kernel(self, device: torch.device) -> str:
        way = rotated_kernel(self, device)
        return f"decoded to int8, {way}" if way else super().kernel(device)

    def __str__(self) -> str:
        width = f"w{self.bits}a8" if self.activations else f"w{self.bits}"
        return f"{width} groups of {self.group_size}, rotated by {self.rotation}"


def rotated_groups(bits: int, rotation: int = SIZES[0]) -> RotatedGroups:
    """W4A8 or W6A8 as ComfyUI's kernels are quickest at, rotated by ``rotation``."""
    return RotatedGroups(bits, 16, rotation, codebook=bits == 4, activations="int8")


W4A8, W6A8 = rotated_groups(4), rotated_groups(6)


def _channel(values: torch.Tensor) -> torch.Tensor:
    """The size of one INT8 step in each row of rotated weights: float32 [N]."""
    largest = values.abs().amax(1)
    require_finite(largest)
    return (largest / _GRID).clamp_(_SMALLEST_SCALE)


def _levels(fmt: RotatedGroups) -> tuple[float, ...]:
    """What the codes stand for, before the scale, in order."""
    if fmt.codebook:
        return CODEBOOK
    return tuple(map(float, range(-31, 32) if fmt.bits == 6 else range(-8, 8)))


def _nearest_level(scaled: torch.Tensor, levels: tuple[float, ...]) -> torch.Tensor:
    """The place in ``levels`` nearest to each of ``scaled``, float32. It may be off by one, which
    the caller corrects by also trying the neighbouring levels."""
    if levels[1] - levels[0] == 1:
        return scaled.round().clamp_(levels[0], levels[-1]).sub_(levels[0])
    return LevelTable(levels, 1.0, _BINS, scaled.device).places(scaled).float()
