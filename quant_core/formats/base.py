"""A format is the arithmetic of one stored weight: quantize, dequantize, linear.

It knows nothing of carriers. The same format stands behind a torchao tensor on a plain module and
behind a ``QuantizedTensor`` in a ComfyUI model; both hand it a :class:`QuantizedWeight`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, ClassVar

import torch

from ..kernels import Coding, add_low_rank, decoded, stored_linear
from ..kernels.blocks import row_blocks as row_blocks
from .extremes import absolute_maximum as absolute_maximum
from .extremes import require_finite as require_finite
from .grid import Grid

FORMATS: dict[str, type[Format]] = {}

# The tensors that a weight may consist of. Code that carries or saves a weight knows only these.
REQUIRED_PARTS = ("qdata", "scale")
BRANCH_PARTS = ("smooth_factor", "proj_up", "proj_down")
OPTIONAL_PARTS = ("zero_point", "scale_2", "input_scale", "codebook", *BRANCH_PARTS)
PARTS = (*REQUIRED_PARTS, *OPTIONAL_PARTS)

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
class QuantizedWeight:
    """One weight as it is stored: a format and its tensors.

    qdata: the codes, in the format's own dtype and shape. scale: as the format defines it.
    zero_point: the same, in weight units. scale_2: the scale of the scales. input_scale: the scale
    of activations, float32. codebook: the numbers that the codes stand for, where each weight has
    its own. smooth_factor, proj_up, proj_down: of a branch beside the codes (see ``svdquant``).
    shape and dtype: of the weight before it was quantized.
    """

    format: Format
    qdata: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor | None
    shape: tuple[int, ...]
    dtype: torch.dtype
    scale_2: torch.Tensor | None = None
    input_scale: torch.Tensor | None = None
    codebook: torch.Tensor | None = None
    smooth_factor: torch.Tensor | None = None
    proj_up: torch.Tensor | None = None
    proj_down: torch.Tensor | None = None

    @classmethod
    def of_parts(
        cls,
        fmt: Format,
        parts: Mapping[str, torch.Tensor | None],
        shape: tuple[int, ...],
        dtype: torch.dtype,
    ) -> QuantizedWeight:
        """The weight whose ``tensors`` are ``parts``."""
        return cls(fmt, shape=tuple(shape), dtype=dtype, **{"zero_point": None, **parts})

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The stored tensors by name, in the order of PARTS; a name whose tensor is None is left
        out."""
        parts = {name: getattr(self, name) for name in PARTS}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def nbytes(self) -> int:
        """Bytes of all stored tensors."""
        return sum(part.nbytes for part in self.tensors.values())

    def map(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> QuantizedWeight:
        """The same weight with ``fn`` applied to each stored tensor."""
        return replace(self, **{name: fn(part) for name, part in self.tensors.items()})

    def dequantize(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weight as a plain tensor of ``shape``, in ``dtype`` (default: the original one)."""
        return decoded(self, self.dtype if dtype is None else dtype)


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

    def take_rows(self, weight: QuantizedWeight, rows: slice) -> QuantizedWeight:
        """Some rows of ``weight``, none of them rounded again. ValueError as in ``in_rows``."""
        from .stack_rows import stack_rows

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


def scale_shape(shape: tuple[int, ...], granularity: str) -> tuple[int, ...]:
    """The shape of the scales of a weight: [N, 1, ...] per row, [] per tensor."""
    return (shape[0],) + (1,) * (len(shape) - 1) if granularity == "per-row" else ()
