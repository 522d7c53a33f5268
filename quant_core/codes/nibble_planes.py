"""Codes of 4 or 6 bits as ComfyUI's W4A8 and W6A8 store a row of them.

Two codes a byte, the first in the low nibble; at 6 bits a second plane of K / 4 bytes follows with
the two high bits of four codes, those of the first lowest.

Tested by tests/quant_core/formats/test_rotated_groups.py.
"""

from __future__ import annotations

import torch

from ..kernels.plain import unpack_nibbles


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 [N, K] as int8 [N, K * bits / 8]."""
    low = codes & 15
    packed = low[:, ::2] | (low[:, 1::2] << 4)
    if bits == 6:
        high = (codes >> 4).unflatten(1, (-1, 4))
        planes = [high[..., place] << (2 * place) for place in range(4)]
        packed = torch.cat((packed, planes[0] | planes[1] | planes[2] | planes[3]), dim=1)
    return packed.view(torch.int8)


def unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """The inverse of ``pack``."""
    octets = packed.view(torch.uint8)
    if bits == 4:
        return unpack_nibbles(octets)
    half = octets.shape[1] * 2 // 3
    low = unpack_nibbles(octets[:, :half].contiguous())
    high = octets[:, half:]
    places = [(high >> (2 * place)) & 3 for place in range(4)]
    return low | (torch.stack(places, dim=-1).flatten(1) << 4)
