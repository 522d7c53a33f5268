"""GGML's block types, as GGUF files hold them: how many weights in how many bytes, what values.

A row of a weight is cut into blocks of 32, 64 or 256 weights; a block holds its codes and scales.
Values are those of the package ``gguf`` to the last bit, in float32. The types whose codes are
indices into grids (IQ1, IQ2, IQ3) are decoded by that package, which holds the grids.

Tested by tests/quant_core/formats/test_gguf.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .minifloat import looked_up

Decode = Callable[[torch.Tensor], torch.Tensor]

# Values of 4-bit codes: IQ4's, and twice those of E2M1.
_IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


@dataclass(frozen=True)
class BlockType:
    """One of GGML's block types.

    number: ggml's own. size: weights in a block. nbytes: bytes of a block. decode: turns blocks [B,
    nbytes] into values [B, size], both contiguous; None where the package ``gguf`` decodes them.
    """

    name: str
    number: int
    size: int
    nbytes: int
    decode: Decode | None = None


BLOCK_TYPES: dict[str, BlockType] = {
    name: BlockType(name, number, 256, nbytes)
    for name, number, nbytes in (
        ("IQ2_XXS", 16, 66),
        ("IQ2_XS", 17, 74),
        ("IQ3_XXS", 18, 98),
        ("IQ1_S", 19, 50),
        ("IQ3_S", 21, 110),
        ("IQ2_S", 22, 82),
        ("IQ1_M", 29, 56),
    )
}


def register_blocks(name: str, number: int, size: int, nbytes: int) -> Callable[[Decode], Decode]:
    """Decorator: registers the ``decode`` function of a block type."""

    def register(decode: Decode) -> Decode:
        BLOCK_TYPES[name] = BlockType(name, number, size, nbytes, decode)
        return decode

    return register


def _half(blocks: torch.Tensor, start: int) -> torch.Tensor:
    """The float16 at byte ``start`` of every block, as float32 [B, 1]."""
    return blocks[:, start : start + 2].contiguous().view(torch.float16).float()


def _codes(packed: torch.Tensor, bits: int, run: int) -> torch.Tensor:
    """Codes [B, n] of ``bits`` bits, uint8. The bytes come in runs of ``run``: first the lowest
    bits of a whole run, then the next higher ones."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
    runs = packed.reshape(len(packed), -1, 1, run)
    return ((runs >> shifts.view(-1, 1)) & (2**bits - 1)).view(len(packed), -1)


def _scaled(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """codes [B, n] times scale [B, s], which serves n / s codes in a row each."""
    groups = codes.float().view(len(codes), scale.shape[1], -1)
    return (scale.unsqueeze(-1) * groups).view(len(codes), -1)


@register_blocks("Q4_0", 2, 32, 18)
def _q4_0(b: torch.Tensor) -> torch.Tensor:
    return _half(b, 0) * (_codes(b[:, 2:], 4, 16).float() - 8)


@register_blocks("Q4_1", 3, 32, 20)
def _q4_1(b: torch.Tensor) -> torch.Tensor:
    return _half(b, 0) * _codes(b[:, 4:], 4, 16).float() + _half(b, 2)


def _five_bits(high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    return (_codes(low, 4, 16) | (_codes(high, 1, 1) << 4)).float()


@register_blocks("Q5_0", 6, 32, 22)
def _q5_0(b: torch.Tensor) -> torch.Tensor:
    return _half(b, 0) * (_five_bits(b[:, 2:6], b[:, 6:]) - 16)


@register_blocks("Q5_1", 7, 32, 24)
def _q5_1(b: torch.Tensor) -> torch.Tensor:
    return _half(b, 0) * _five_bits(b[:, 4:8], b[:, 8:]) + _half(b, 2)


@register_blocks("Q8_0", 8, 32, 34)
def _q8_0(b: torch.Tensor) -> torch.Tensor:
    return _half(b, 0) * b[:, 2:].contiguous().view(torch.int8).float()


@register_blocks("Q2_K", 10, 256, 84)
def _q2_k(b: torch.Tensor) -> torch.Tensor:
    scales = b[:, :16]
    step = _half(b, 80) * (scales & 15).float()
    low = _half(b, 82) * (scales >> 4).float()
    return _scaled(_codes(b[:, 16:80], 2, 32), step) - low.repeat_interleave(16, dim=1)


@register_blocks("Q3_K", 11, 256, 110)
def _q3_k(b: torch.Tensor) -> torch.Tensor:
    scales = _codes(b[:, 96:104], 4, 8) | (_codes(b[:, 104:108], 2, 4) << 4)
    step = _half(b, 108) * (scales.float() - 32)
    # A high bit that is not set takes four away.
    codes = _codes(b[:, 32:96], 2, 32).float() - 4 * (1 - _codes(b[:, :32], 1, 32).float())
    return _scaled(codes, step)


def _six_bit_pairs(b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Step and minimum [B, 8] of Q4_K and Q5_K: 6 bits each, in bytes 4 to 16."""
    first, second, rest = b[:, 4:8], b[:, 8:12], b[:, 12:16]
    step = torch.cat((first & 63, (rest & 15) | ((first >> 2) & 48)), dim=1)
    low = torch.cat((second & 63, (rest >> 4) | ((second >> 2) & 48)), dim=1)
    return _half(b, 0) * step.float(), _half(b, 2) * low.float()


@register_blocks("Q4_K", 12, 256, 144)
def _q4_k(b: torch.Tensor) -> torch.Tensor:
    step, low = _six_bit_pairs(b)
    return _scaled(_codes(b[:, 16:], 4, 32), step) - low.repeat_interleave(32, dim=1)


@register_blocks("Q5_K", 13, 256, 176)
def _q5_k(b: torch.Tensor) -> torch.Tensor:
    step, low = _six_bit_pairs(b)
    codes = _codes(b[:, 48:], 4, 32) | (_codes(b[:, 16:48], 1, 32) << 4)
    return _scaled(codes, step) - low.repeat_interleave(32, dim=1)


@register_blocks("Q6_K", 14, 256, 210)
def _q6_k(b: torch.Tensor) -> torch.Tensor:
    codes = _codes(b[:, :128], 4, 64) | (_codes(b[:, 128:192], 2, 32) << 4)
    step = _half(b, 208) * b[:, 192:208].contiguous().view(torch.int8).float()
    return _scaled(codes.float() - 32, step)


@register_blocks("IQ4_NL", 20, 32, 18)
def _iq4_nl(b: torch.Tensor) -> torch.Tensor:
    return _half(b, 0) * looked_up(_codes(b[:, 2:], 4, 16), _IQ4)


@register_blocks("IQ4_XS", 23, 256, 136)
def _iq4_xs(b: torch.Tensor) -> torch.Tensor:
    scales = _codes(b[:, 4:8], 4, 1) | (_codes(b[:, 2:4], 2, 1) << 4)
    step = _half(b, 0) * (scales.float() - 32)
    return _scaled(looked_up(_codes(b[:, 8:], 4, 16), _IQ4), step)


def _trits(packed: torch.Tensor, count: int, run: int) -> torch.Tensor:
    """Base-3 digits 0, 1, 2 of bytes that hold ``count`` each, as fractions of 256."""
    powers = torch.tensor([3**i for i in range(count)], dtype=torch.uint8, device=packed.device)
    digits = packed.reshape(len(packed), -1, 1, run) * powers.view(-1, 1)  # modulo 256
    return (digits.to(torch.int16) * 3 >> 8).view(len(packed), -1)


@register_blocks("TQ1_0", 34, 256, 54)
def _tq1_0(b: torch.Tensor) -> torch.Tensor:
    parts = (_trits(b[:, :32], 5, 32), _trits(b[:, 32:48], 5, 16), _trits(b[:, 48:52], 4, 4))
    return _half(b, 52) * (torch.cat(parts, dim=1).float() - 1)


@register_blocks("TQ2_0", 35, 256, 66)
def _tq2_0(b: torch.Tensor) -> torch.Tensor:
    return _half(b, 64) * (_codes(b[:, :64], 2, 32).float() - 1)


@register_blocks("MXFP4", 39, 32, 17)
def _mxfp4(b: torch.Tensor) -> torch.Tensor:
    exponent = b[:, :1].int() - 128
    half_scale = torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent)
    return half_scale * looked_up(_codes(b[:, 1:], 4, 16), _E2M1)


@register_blocks("NVFP4", 40, 64, 36)
def _nvfp4(b: torch.Tensor) -> torch.Tensor:
    scale = (b[:, :4] & 127).view(torch.float8_e4m3fn).float().nan_to_num(480.0)
    scale = torch.where(b[:, :4] == 127, 0.0, scale / 2)
    return _scaled(looked_up(_codes(b[:, 4:], 4, 8), _E2M1), scale)
