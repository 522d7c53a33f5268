"""The error of embeddings: vectors of tokens beside those of a reference, token by token.

A few tokens of a language model have a hundred times the length of the others. Over all values
together they would be all that counts, so each token is compared by itself, and the mean is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch


@dataclass(frozen=True)
class EmbeddingError:
    """How far embeddings are from their reference. cosine: of the angle between the two vectors of
    a token, and relative_l2: ||result - reference|| / ||reference|| of one, means over tokens.
    lowest_cosine: of the worst token. tokens: how many were compared."""

    cosine: float
    relative_l2: float
    lowest_cosine: float
    tokens: int

    def to_dict(self) -> dict[str, float]:
        """Plain values, for JSON."""
        return asdict(self)


def embedding_error(
    pairs: Iterable[tuple[torch.Tensor, torch.Tensor]],
) -> EmbeddingError | None:
    """The error over ``pairs`` (result, reference), each [..., width] of one shape. Tokens that are
    zero in the reference are left out; None where no other is there."""
    cosines, errors = [], []
    for result, reference in pairs:
        one, other = (side.reshape(-1, side.shape[-1]).float() for side in (result, reference))
        own, length = one.norm(dim=-1), other.norm(dim=-1)
        there = length > 0
        product = (one * other).sum(-1)
        cosines.append((product / (own * length).clamp(min=1e-30))[there])
        errors.append(((one - other).norm(dim=-1) / length.clamp(min=1e-30))[there])
    cosine = torch.cat([torch.empty(0), *cosines])
    if not len(cosine):
        return None
    return EmbeddingError(
        cosine.mean().item(), torch.cat(errors).mean().item(), cosine.min().item(), len(cosine)
    )
