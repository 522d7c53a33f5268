"""What every format has: quantize, dequantize, linear, and what the package asks of it besides.

Tested by tests/quant_core/formats/base/test_format.py and tests/quant_core/formats/test_base.py.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar

import torch

from ...kernels import Coding, add_low_rank, stored_linear
from .grid import Grid
from .quantized_weight import QuantizedWeight
from .stack_rows import stack_rows

FORMATS: dict[str, type[Format]] = {}

# In ComfyUI's marker: activations stay as they are.
WEIGHT_ONLY = "full_precision_matrix_mult"


def register_format(cls: type[Format]) -> type[Format]:
    """Class decorator: registers a format, so that ``format_from_dict`` knows its ``kind``."""
    FORMATS[cls.kind] = cls
    return cls


def format_from_dict(values: dict[str, Any]) -> Format:
    """The format that ``Format.to_dict`` wrote.

    KeyError for an unknown ``kind``, TypeError or ValueError for values that the format cannot
    have.
    """
    values = dict(values)
    cls = FORMATS[values.pop("kind")]
    for each in fields(cls):
        value = values.get(each.name, each.default)
        if each.default not in (None, MISSING) and type(value) is not type(each.default):
            raise TypeError(f"{each.name} of {cls.kind} is {value!r}.")
    return cls(**values)


@dataclass(frozen=True)
class Format(ABC):
    """How a weight is stored and multiplied; two weights of equal formats are treated alike.

    kind: the format's name in files. needs_input_scale: each layer needs a measured scale for its
    activations before it can be quantized (see ``with_activation_maximum``). needs_calibration:
    it is for layers of which rows of activations are known. copies: float32 copies of the whole
    weight that ``quantize`` holds at a time, where it does not work in blocks. entries: what
    ComfyUI's files call a part, where that is not ``weight_<part>``.
    """

    kind: ClassVar[str]
    needs_input_scale: ClassVar[bool] = False
    needs_calibration: ClassVar[bool] = False
    copies: ClassVar[int] = 0
    entries: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def quantize(self, weight: torch.Tensor) -> QuantizedWeight:
        """Rounds ``weight`` (float, [N, K] or [N, ...]) to this format, in float32, to nearest.

        NonFiniteWeightError where the weight holds NaN or infinity.
        """

    @abstractmethod
    def dequantize(self, weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
        """The weight as a plain tensor of its shape, rounded once to ``dtype``, in plain PyTorch.
        ``QuantizedWeight.dequantize`` takes a kernel where there is one."""

    @property
    def coding(self) -> Coding | None:
        """What kernels need to know to decode a matrix of this format, if they can."""
        return None

    def grid(self, weight: torch.Tensor, importance: torch.Tensor | None = None) -> Grid | None:
        """The values that ``weight`` [N, K] may take under scales that are chosen here.

        importance: float32 [K], positive: what the squared error of a column counts where scales
        are searched. None where the format's scales do not lie along rows, or K does not fit them.
        A format that rounds in another basis than the weight's is given ``in_own_basis(weight)``.
        """
        return None

    def in_own_basis(self, matrix: torch.Tensor) -> torch.Tensor:
        """``matrix`` [..., K], of weights or of activations, as this format rounds it: float32.

        The same orthogonal map of each row for both, so that products stay what they are.
        """
        return matrix.float()

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """The dtype and shape of each stored tensor, for a weight of ``shape``.

        This default is for formats that store row by row: it quantizes one row of zeros.
        """
        row = self.quantize(torch.zeros(1, *shape[1:])).tensors
        return {
            part: (tensor.dtype, (shape[0], *tensor.shape[1:]) if tensor.dim() else ())
            for part, tensor in row.items()
        }

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Stored bytes of a weight of ``shape``."""
        parts = self.parts(shape).values()
        return sum(dtype.itemsize * math.prod(part) for dtype, part in parts)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight of ``shape`` [N, K] or [N, ...] can be stored: groups and rotations of
        columns take them all."""
        columns = math.prod(shape[1:])
        return all(columns % getattr(self, step, 1) == 0 for step in ("group_size", "rotation"))

    @abstractmethod
    def __str__(self) -> str:
        """How reports name it."""

    def linear(
        self, x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """``x @ W.T + bias`` for x [..., K]; computed in the dtype of x, whatever the weight's."""
        return stored_linear(x, weight, bias)

    def linear_with_low_rank(
        self,
        x: torch.Tensor,
        weight: QuantizedWeight,
        bias: torch.Tensor | None,
        up: torch.Tensor,
        down: torch.Tensor,
    ) -> torch.Tensor:
        """``x @ (W + up @ down).T + bias``, up [N, R] and down [R, K] in the dtype of x."""
        if self.activations is None:
            return stored_linear(x, weight, bias, up, down)
        return add_low_rank(self.linear(x, weight, bias), x, up, down)

    def with_low_rank(
        self, weight: QuantizedWeight, up: torch.Tensor, down: torch.Tensor
    ) -> QuantizedWeight | None:
        """``weight`` with ``up @ down`` in the low-rank branch that it has already, up [N, R] and
        down [R, K]; None where this format has no such branch."""
        return None

    def emulated(
        self, x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """What a device that rounds ``activations`` computes, in plain PyTorch, for formats whose
        ``linear`` leaves them as they are where nothing multiplies them rounded."""
        return self.linear(x, weight, bias)

    @property
    def activations(self) -> str | None:
        """What activations are rounded to when a layer runs ("int8", "float8_e4m3fn", "mxfp8",
        "nvfp4"); None where they stay as they are."""
        return None

    @property
    def product_kind(self) -> str | None:
        """Which codes ``linear`` multiplies whose products are then scaled by rows and columns,
        "int8" or "fp8"; None for any other way."""
        return {"int8": "int8", "float8_e4m3fn": "fp8"}.get(self.activations)

    def weight_only(self) -> Format:
        """The format that stores the same weights and leaves activations as they are."""
        return self

    def dynamic(self, shape: tuple[int, ...]) -> Format | None:
        """The format that stores a weight of ``shape`` in the same codes and rounds activations, so
        that codes are multiplied by codes; None where there is none. The reverse of
        ``weight_only``."""
        return None

    @property
    def needs_fp8_matmul(self) -> bool:
        """Whether ``linear`` multiplies FP8 by FP8, which not every device can."""
        return False

    def with_activation_maximum(self, maximum: float) -> Format:
        """This format for a layer whose activations reach ``maximum`` in magnitude."""
        return self

    def with_rank(self, rank: int) -> Format:
        """This format with a low-rank branch of ``rank``; others have none and stay as they are."""
        return self

    def with_algorithm(self, algorithm: str) -> Format:
        """This format with the ranges of INT4 groups found by ``algorithm``, one of
        ``affine.ALGORITHMS``; other formats stay as they are."""
        return self

    def in_rows(self, weight: QuantizedWeight) -> QuantizedWeight:
        """The same weight with every part divided by rows, [N, ...], so that rows can be taken out
        of it. ValueError where rows share codes or scales."""
        raise ValueError(f"{self} has scales that several rows share")

    def take_rows(self, weight: QuantizedWeight, rows: slice | torch.Tensor) -> QuantizedWeight:
        """Some rows of ``weight``, none of them rounded again, by a slice or their numbers.
        ValueError as in ``in_rows``."""
        if weight.input_scale is not None:
            raise ValueError("its activations have a static scale")
        return stack_rows([(weight, rows)])

    def torchao_tensor(self, weight: QuantizedWeight) -> torch.Tensor | None:
        """torchao's own tensor of ``weight``, over the same storage; None where none works."""
        return None

    def stock_marker(self) -> dict[str, Any] | None:
        """The JSON values that tell ComfyUI's own loader how such a matrix is stored; None where
        ComfyUI has no such format."""
        return None

    @property
    def stock_needs(self) -> str:
        """What reads ``stock_marker`` without this pack, where not every ComfyUI from 0.30.0 on
        does: "ComfyUI 0.31.0 or newer"."""
        return ""

    @property
    def stock_rounds_activations(self) -> bool:
        """Whether ComfyUI alone, reading ``stock_marker``, rounds activations that this format
        leaves as they are."""
        marker = self.stock_marker()
        return marker is not None and not (self.activations or marker.get(WEIGHT_ONLY))

    def kernel(self, device: torch.device) -> str:
        """What multiplies weights of this format on ``device``, in words."""
        return "dequantize + matmul"

    def to_dict(self) -> dict[str, Any]:
        """Plain values from which ``format_from_dict`` makes the format again."""
        return {"kind": self.kind, **asdict(self)}
