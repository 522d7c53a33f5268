"""Codes of 1 to 8 bits, packed without gaps: eight codes of b bits in b bytes.

The eight codes make one number, the first in its lowest bits, stored in bytes from the lowest. For
4 bits that is two codes a byte, the low nibble first.
"""

from __future__ import annotations

import torch


def packed_bytes(count: int, bits: int) -> int:
    """How many bytes ``count`` codes take: those of the next multiple of eight codes."""
    return -(-count // 8) * bits


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Packs uint8 [..., n] of values below 2 ** bits into uint8 [..., packed_bytes(n, bits)]."""
    if bits == 8:
        return torch.nn.functional.pad(codes, (0, -codes.shape[-1] % 8))
    words = torch.nn.functional.pad(codes, (0, -codes.shape[-1] % 8)).unflatten(-1, (-1, 8))
    word = words[..., 0].long()
    for place in range(1, 8):
        word = word | (words[..., place].long() << (bits * place))
    octets = [(word >> (8 * place)) & 255 for place in range(bits)]
    return torch.stack(octets, dim=-1).to(torch.uint8).flatten(-2)


def unpack(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The inverse of ``pack``: the first ``count`` codes, uint8 [..., count]."""
    if bits == 8:
        return packed[..., :count]
    octets = packed.unflatten(-1, (-1, bits))
    word = octets[..., 0].long()
    for place in range(1, bits):
        word = word | (octets[..., place].long() << (8 * place))
    mask = 2**bits - 1
    codes = [((word >> (bits * place)) & mask).to(torch.uint8) for place in range(8)]
    return torch.stack(codes, dim=-1).flatten(-2)[..., :count]
