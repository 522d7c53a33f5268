"""The change that adapters make to a weight, kept beside its codes and therefore not rounded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ....quant_core.errors import NonFiniteWeightError

# Elements that ``distance`` takes at a time: 4 MiB of float32.
_BLOCK = 2**20


@dataclass(frozen=True)
class Change:
    """What adapters make of a weight W:

    W' = row_gain * W * column_gain + lora_up @ lora_down + sum of kron(left, right)

    For W [N, K]: row_gain [N, 1] and column_gain [1, K] (DoRA), lora_up [N, r] and lora_down [r, K]
    (LoRA, LoHa), kron_left [T, a, b] and kron_right [T, c, d] with a c = N, b d = K (LoKr). What is
    None changes nothing.
    """

    row_gain: torch.Tensor | None = None
    column_gain: torch.Tensor | None = None
    lora_up: torch.Tensor | None = None
    lora_down: torch.Tensor | None = None
    kron_left: torch.Tensor | None = None
    kron_right: torch.Tensor | None = None

    @classmethod
    def of(cls, holder: Any) -> Change | None:
        """The Change in an object with attributes of these names; None where all are None."""
        parts = {n: part for n in FIELDS if (part := getattr(holder, n)) is not None}
        return cls(**parts) if parts else None

    @property
    def is_low_rank(self) -> bool:
        """Whether ``lora_up @ lora_down`` is all of it, which a format may add within a kernel."""
        return self.lora_up is not None and all(
            part is None for name, part in self.parts().items() if not name.startswith("lora_")
        )

    def parts(self) -> dict[str, torch.Tensor | None]:
        """Every field by its name."""
        return {name: getattr(self, name) for name in FIELDS}

    def to(self, target: torch.dtype | torch.device) -> Change:
        """The same Change in another dtype or on another device."""
        parts = self.parts().items()
        return Change(**{name: None if part is None else part.to(target) for name, part in parts})

    def apply(self, weight: torch.Tensor, first: int = 0) -> torch.Tensor:
        """The changed weight [N, K], a new tensor in the dtype of ``weight``. ``weight`` may be no
        more than the rows from ``first`` on."""
        rows = slice(first, first + len(weight))
        result = weight.clone()
        if self.row_gain is not None:
            result *= self.row_gain[rows].to(weight)
        if self.column_gain is not None:
            result *= self.column_gain.to(weight)
        if self.lora_up is not None:
            result += self.lora_up[rows].to(weight) @ self.lora_down.to(weight)
        if self.kron_left is not None:
            for left, right in zip(self.kron_left, self.kron_right, strict=True):
                result += _kron_rows(left, right, rows).to(weight)
        return result

    def apply_to_rows(self, values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """The changed rows ``rows`` [n] of a weight; ``values`` [n, K] are the unchanged ones."""
        result = values.clone()
        if self.row_gain is not None:
            result *= self.row_gain[rows].to(values)
        if self.column_gain is not None:
            result *= self.column_gain.to(values)
        if self.lora_up is not None:
            result += self.lora_up[rows].to(values) @ self.lora_down.to(values)
        if self.kron_left is not None:
            height = self.kron_right.shape[1]
            left, right = self.kron_left[:, rows // height], self.kron_right[:, rows % height]
            result += torch.einsum("tnb,tnd->nbd", left, right).flatten(1).to(values)
        return result

    def distance(self, before: torch.Tensor, after: torch.Tensor, limit: float = math.inf) -> float:
        """The Frobenius norm of after - apply(before), in float32; infinity where it passes
        ``limit``.

        Some rows at a time: whole float32 copies would take a multiple of a half-precision weight's
        memory, and most changes that are not the right one show in the first rows.
        """
        square, step = 0.0, max(1, _BLOCK // before.shape[1])
        for first in range(0, len(before), step):
            rows = slice(first, first + step)
            difference = self.apply(before[rows].float(), first).sub_(after[rows])
            square += difference.square_().sum().item()
            if square > limit * limit:
                return math.inf
        return math.sqrt(square)

    def linear(
        self,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        product: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor],
    ) -> torch.Tensor:
        """The product x @ W'.T + bias for x [..., K]. product(x, bias): the same of the unchanged
        weight."""
        inner = x if self.column_gain is None else x * self.column_gain[0].to(x.dtype)
        if self.row_gain is None:
            y = product(inner, bias)
        else:
            y = product(inner, None) * self.row_gain[:, 0].to(x.dtype)
            y = y if bias is None else y + bias.to(x.dtype)
        return self.add_branches(x, y)

    def add_branches(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The output ``y`` [..., N] with the low-rank and Kronecker products of x [..., K] added;
        the gains are left out. ``y`` is overwritten: pass a tensor that nothing else reads."""
        if self.lora_up is not None:
            inner = F.linear(x, self.lora_down.to(x.dtype))
            # Where y lies: passes over it are what a thin product costs, and a new y doubles them.
            rows = y.reshape(-1, y.shape[-1])
            rows.addmm_(inner.reshape(-1, inner.shape[-1]), self.lora_up.to(x.dtype).t())
            y = rows.view(y.shape)
        if self.kron_left is not None:
            y = y + _kron_linear(x, self.kron_left.to(x.dtype), self.kron_right.to(x.dtype))
        return y


def with_lora_not_finite(key: str) -> NonFiniteWeightError:
    """The error for a weight ``key`` that is not finite once its LoRA is added."""
    return NonFiniteWeightError(
        f"{key} is NaN or infinite with its LoRA added. Remove the LoRA, or lower its strength."
    )


FIELDS = tuple(field.name for field in dataclasses.fields(Change))


def _kron_rows(left: torch.Tensor, right: torch.Tensor, rows: slice) -> torch.Tensor:
    """kron(left, right)[rows], of no more of ``left`` than it takes."""
    height = len(right)
    first, last = rows.start // height, -(-rows.stop // height)
    offset = first * height
    return torch.kron(left[first:last], right)[rows.start - offset : rows.stop - offset]


def _kron_linear(x: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """x @ (sum of kron(left, right)).T, 1 / a of the full product's multiplications a term."""
    rows = x.unflatten(-1, (left.shape[2], right.shape[2]))
    inner = torch.einsum("...bd,tcd->...tbc", rows, right)
    return torch.einsum("tab,...tbc->...ac", left, inner).flatten(-2)
