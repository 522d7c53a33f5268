"""Floating point codes of 3 to 8 bits: a sign, e exponent bits and m mantissa bits.

All codes are numbers: there is no infinity and no NaN. The exponent bias is 2 ** (e - 1) - 1 and
exponent zero is subnormal, as in torchao, FP6-LLM and the OCP formats FP4 and FP6.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from ..kernels.blocks import is_traced


def largest_value(exponent: int, mantissa: int) -> float:
    """The largest number that a code stands for."""
    return values_of(exponent, mantissa)[2 ** (exponent + mantissa) - 1]


def values_of(exponent: int, mantissa: int) -> tuple[float, ...]:
    """The numbers that the codes stand for, in the order of codes."""
    bias = 2 ** (exponent - 1) - 1
    positive = []
    for code in range(2 ** (exponent + mantissa)):
        power, fraction = code >> mantissa, code & (2**mantissa - 1)
        whole = 2**mantissa if power else 0
        positive.append((whole + fraction) * 2.0 ** (max(power, 1) - bias - mantissa))
    return (*positive, *(-value for value in positive))


def encode(values: torch.Tensor, exponent: int, mantissa: int) -> torch.Tensor:
    """The uint8 codes of float32 ``values``, rounded to nearest, ties to even, saturated."""
    bias = 2 ** (exponent - 1) - 1
    magnitude = values.abs()
    # frexp has mantissas in [0.5, 1), and for zero an exponent that means nothing.
    power = (torch.frexp(magnitude).exponent - 1).clamp_(min=1 - bias)
    power = power.masked_fill_(magnitude == 0, 1 - bias)
    exact = torch.ldexp(magnitude, mantissa - power)
    steps = exact.round().int()
    below = (power + (bias - 1)) << mantissa
    if mantissa == 0:  # the last bit of a code, by which ties are even, is the exponent's
        steps = steps - ((exact == 1.5) & (below % 2 == 1)).int()
    # A mantissa that is rounded up to the next power carries into the exponent by itself.
    codes = below + steps
    codes = codes.clamp_(max=2 ** (exponent + mantissa) - 1)
    sign = torch.signbit(values).int() << (exponent + mantissa)
    return (codes | sign).to(torch.uint8)


def looked_up(codes: torch.Tensor, values: tuple[float, ...]) -> torch.Tensor:
    """The float32 number from the table ``values`` for each code; the shape of ``codes``."""
    table = (_new_table if is_traced(codes) else _kept_table)(values, codes.device)
    return table.index_select(0, codes.reshape(-1).int()).view(codes.shape)


def _new_table(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


@lru_cache
def _kept_table(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """The table, kept on its device: sending it to a GPU each time would wait for all its work."""
    with torch.inference_mode(False):
        return _new_table(values, device)
