"""The change that a ModelPatcher's patches make to a weight, as ComfyUI's adapters define it.

LoRA and LoHa are low-rank products, LoKr is a Kronecker product, DoRA scales rows or columns. All
of them stay beside the codes. A full difference, OFT, BOFT and others cannot be written so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from comfy.weight_adapter.loha import LoHaAdapter
from comfy.weight_adapter.lokr import LoKrAdapter
from comfy.weight_adapter.lora import LoRAAdapter

from .changes import Change

# A LoHa of ranks r and s is a product of rank r s; beyond this the side branch costs too much.
MAX_LOHA_RANK = 256

Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class _Term:
    """What one adapter of strength 1 adds: a low-rank product [N, r] @ [r, K], or
    kron([a, b], [c, d]). dora: its magnitudes, or None."""

    factors: Pair | None
    kron: Pair | None
    dora: torch.Tensor | None


def adapter_change(
    patches: Sequence[tuple],
    shape: tuple[int, int],
    device: torch.device,
    base: torch.Tensor | None = None,
) -> Change | None:
    """The Change that ``patches`` make to a weight [N, K] of ``shape``, float32 on ``device``.

    base: the weight in the dtype that it is patched in, whose norms a DoRA needs. None where a
    patch is not a Change: another kind of adapter, a LoKr that a DoRA scales, LoKrs of different
    shapes, a DoRA without ``base``.
    """
    change: Change | None = None
    for patch in patches:
        term = _term(patch, shape, device)
        change = None if term is None else _after(change or Change(), term, patch[0], base)
        if change is None:
            return None
    return change


def _term(patch: tuple, shape: tuple[int, int], device: torch.device) -> _Term | None:
    _, adapter, strength_model, offset, function = patch
    make = _TERMS.get(type(adapter))
    if make is None or strength_model != 1.0 or function is not None:
        return None
    term = make(adapter.weights, device)
    if term is not None and offset is not None:  # it changes a slice, say q of a fused qkv
        if term.factors is None or term.dora is not None:
            return None
        term = replace(term, factors=_embed(term.factors, offset, shape))
    return term if term is not None and _shape(term) == tuple(shape) else None


def _shape(term: _Term) -> tuple[int, int]:
    if term.factors is not None:
        return len(term.factors[0]), term.factors[1].shape[1]
    left, right = term.kron
    return left.shape[0] * right.shape[0], left.shape[1] * right.shape[1]


def _after(
    change: Change, term: _Term, strength: float, base: torch.Tensor | None
) -> Change | None:
    if term.dora is not None:
        return None if base is None else _decomposed(change, term, strength, base)
    if term.factors is not None:
        up, down = term.factors
        return _with_factors(change, up * strength, down)
    left, right = (part[None] for part in term.kron)
    left = left * strength
    if change.kron_left is None:
        return replace(change, kron_left=left, kron_right=right)
    if (change.kron_left[:1].shape, change.kron_right[:1].shape) != (left.shape, right.shape):
        return None
    return replace(
        change,
        kron_left=torch.cat((change.kron_left, left)),
        kron_right=torch.cat((change.kron_right, right)),
    )


def _with_factors(change: Change, up: torch.Tensor, down: torch.Tensor) -> Change:
    if change.lora_up is not None:
        up, down = torch.cat((change.lora_up, up), dim=1), torch.cat((change.lora_down, down))
    return replace(change, lora_up=up, lora_down=down)


def _decomposed(change: Change, term: _Term, strength: float, base: torch.Tensor) -> Change | None:
    """``change``, then a DoRA: magnitudes over norms scale the weight and the term, by rows or by
    columns, as ``comfy.weight_adapter.base.weight_decompose`` computes them."""
    if term.factors is None or change.kron_left is not None:
        return None
    (up, down), dora = term.factors, term.dora
    weight = change.apply(base.float())
    eps = torch.finfo(base.dtype).eps
    if dora.shape == (len(base), 1):
        ratio = dora / (weight.norm(dim=1, keepdim=True) + eps)
        gain = 1 - strength + strength * ratio
        scaled = _scaled(change, "row_gain", "lora_up", gain)
        return _with_factors(scaled, strength * ratio * up, down)
    if dora.shape == (1, base.shape[1]):
        ratio = dora / ((weight + up @ down).norm(dim=0, keepdim=True) + eps)
        gain = 1 - strength + strength * ratio
        scaled = _scaled(change, "column_gain", "lora_down", gain)
        return _with_factors(scaled, strength * up, ratio * down)
    return None


def _scaled(change: Change, gain_field: str, factor_field: str, gain: torch.Tensor) -> Change:
    before, factor = getattr(change, gain_field), getattr(change, factor_field)
    after = {gain_field: gain if before is None else gain * before}
    if factor is not None:
        after[factor_field] = gain * factor
    return replace(change, **after)


def _embed(factors: Pair, offset: tuple[int, int, int], shape: tuple[int, int]) -> Pair:
    (up, down), (dim, start, _) = factors, offset
    if dim == 0:
        return _padded(up, 0, start, shape[0]), down
    return up, _padded(down, 1, start, shape[1])


def _padded(part: torch.Tensor, dim: int, start: int, size: int) -> torch.Tensor:
    whole = part.new_zeros([size if d == dim else n for d, n in enumerate(part.shape)])
    whole.narrow(dim, start, part.shape[dim]).copy_(part)
    return whole


def _lora(weights: Sequence, device: torch.device) -> _Term | None:
    up, down, alpha, mid, dora, reshape = weights
    if mid is not None or reshape is not None:
        return None
    up, down = (part.to(device, torch.float32).flatten(1) for part in (up, down))
    return _Term((up * _scale(alpha, len(down)), down), None, _magnitudes(dora, device))


def _loha(weights: Sequence, device: torch.device) -> _Term | None:
    """(A B) * (C D), elementwise, is a product of the row-wise and column-wise Kronecker products
    of its factors (Khatri-Rao), of rank r s."""
    up_1, down_1, alpha, up_2, down_2, tucker, _, dora = weights
    if tucker is not None or up_1.dim() != 2 or len(down_1) * len(down_2) > MAX_LOHA_RANK:
        return None
    up_1, down_1, up_2, down_2 = (
        part.to(device, torch.float32) for part in (up_1, down_1, up_2, down_2)
    )
    up = torch.einsum("nr,ns->nrs", up_1, up_2).flatten(1)
    down = torch.einsum("rk,sk->rsk", down_1, down_2).flatten(0, 1)
    return _Term((up * _scale(alpha, len(down_1)), down), None, _magnitudes(dora, device))


def _lokr(weights: Sequence, device: torch.device) -> _Term | None:
    left, right, alpha, left_a, left_b, right_a, right_b, tucker, dora = (
        part.to(device, torch.float32) if isinstance(part, torch.Tensor) else part
        for part in weights
    )
    if tucker is not None:
        return None
    rank = None  # the last decomposed one's, as ComfyUI takes it
    if left is None:
        left, rank = left_a @ left_b, len(left_b)
    if right is None:
        right, rank = right_a @ right_b, len(right_b)
    if left.dim() != 2 or right.dim() != 2:
        return None
    scale = 1.0 if rank is None else _scale(alpha, rank)
    return _Term(None, (left * scale, right), dora)


def _scale(alpha: float | None, rank: int) -> float:
    return 1.0 if alpha is None else alpha / rank


def _magnitudes(dora: torch.Tensor | None, device: torch.device) -> torch.Tensor | None:
    return None if dora is None else dora.to(device, torch.float32)


_TERMS: dict[type, Callable[[Sequence, torch.device], _Term | None]] = {
    LoRAAdapter: _lora,
    LoHaAdapter: _loha,
    LoKrAdapter: _lokr,
}
