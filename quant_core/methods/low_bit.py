"""Methods of fewer than eight bits, and of eight bits in blocks."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..formats import (
    MXFP8,
    NVFP4,
    BlockFloat8,
    Code4,
    Fine4,
    Float8,
    FloatX,
    Format,
    Int4,
    Int4Dynamic,
    Int8,
    IntN,
    LlmInt8,
)
from .groups import in_groups
from .method import Choice, Choose, Method, register_family, register_method

_GROUPS = (64, 32)


def _linear_only(fmt: Format) -> Choose:
    """Chooses ``fmt`` for every matrix."""

    def choose(shape: tuple[int, ...], granularity: str) -> Choice:
        return Choice(fmt) if len(shape) == 2 else Choice(None, f"{fmt} is for Linear layers")

    return choose


_int4_dynamic = in_groups("INT4", lambda size: Int4Dynamic(group_size=size), (32,))


def _llm_int8(shape: tuple[int, ...], granularity: str) -> Choice:
    if len(shape) != 2 or shape[1] == 1:
        return Choice(Int8("per-row"), "weight-only: torch._int_mm misreads K = 1")
    return Choice(LlmInt8())


def _integers(bits: int) -> Choose:
    return in_groups(f"INT{bits}", lambda size: IntN(bits, size), _GROUPS)


# Name, summary, choose, and the weight-only twin of a method that rounds activations.
_METHODS: tuple[tuple[str, str, Choose, str], ...] = (
    (
        "int4-dynamic",
        "INT4 weights and INT8 activations, multiplied dequantized.",
        _int4_dynamic,
        "int4-symmetric-g32",
    ),
    (
        "llm.int8",
        "INT8 weights and activations, large columns of activations apart.",
        _llm_int8,
        "int8",
    ),
    ("nf4", "bitsandbytes' NF4: 4.5 bits a weight.", _linear_only(Code4("nf4")), ""),
    (
        "fp4",
        "bitsandbytes' FP4: 4.5 bits a weight, NF4 loses less.",
        _linear_only(Code4("fp4")),
        "",
    ),
    ("int2", "2-bit integers in groups: 2.5 bits a weight, heavy loss.", _integers(2), ""),
    ("int3", "3-bit integers in groups: 3.5 bits a weight.", _integers(3), ""),
    ("int5", "5-bit integers in groups: 5.5 bits a weight.", _integers(5), ""),
    ("int6", "6-bit integers in groups: 6.5 bits a weight.", _integers(6), ""),
    ("fp6", "FP6 (e3m2), a scale a row: 6 bits a weight.", _linear_only(FloatX(3, 2)), ""),
    (
        "fp8-block",
        "FP8 weights, a scale for each 128 x 128.",
        _linear_only(BlockFloat8()),
        "",
    ),
    (
        "mxfp8",
        "MXFP8 as ComfyUI stores it: multiplied in it on Blackwell, dequantized elsewhere.",
        _linear_only(MXFP8("mxfp8")),
        "mxfp8-weight-only",
    ),
    (
        "nvfp4",
        "NVFP4 as ComfyUI stores it, 4.5 bits a weight: multiplied in it on Blackwell, "
        "dequantized elsewhere.",
        _linear_only(NVFP4("nvfp4")),
        "nvfp4-weight-only",
    ),
)
for _name, _summary, _choose, _weight_only in _METHODS:
    register_method(_name, _summary, weight_only=_weight_only)(_choose)


register_method(
    "nf4-fine",
    "4-bit codes in groups of 32: 4.25 bits a weight, the least loss at that size.",
)(in_groups("nf4-fine", Fine4, (32, 16)))


@register_family(r"int([1-7])(-symmetric)?(?:-g([1-9]\d*))?")
def _int_n(match: re.Match[str]) -> Method:
    bits, symmetric = int(match[1]), bool(match[2])
    sizes = (int(match[3]),) if match[3] else _GROUPS
    make = Int4 if bits == 4 and not symmetric else _maker(bits, symmetric)
    make(sizes[0])  # what cannot be is said now
    kind = "symmetric" if symmetric else "affine"
    summary = f"{bits}-bit integers, {kind}, in groups of {' or '.join(map(str, sizes))}."
    return Method(match[0], summary, in_groups(f"INT{bits}", make, sizes))


def _maker(bits: int, symmetric: bool) -> Callable[[int], Format]:
    return lambda size: IntN(bits, size, symmetric)


@register_family(r"fp([1-79])[-_]e(\d)[mw](\d)")
def _float_x(match: re.Match[str]) -> Method:
    bits, exponent, mantissa = map(int, match.groups())
    if bits != exponent + mantissa + 1:
        raise ValueError(
            f"{match[0]} cannot be: {exponent} exponent and {mantissa} mantissa bits and a sign "
            f"are {exponent + mantissa + 1} bits, not {bits}. Write fpX_eAmB with X = A + B + 1, "
            "such as fp6_e3m2."
        )
    fmt = FloatX(exponent, mantissa)
    name = f"fp{bits}-e{exponent}m{mantissa}"
    return Method(name, f"{fmt} weights.", _linear_only(fmt))


@register_family(r"(nf4|fp4)-double")
def _code4(match: re.Match[str]) -> Method:
    fmt = Code4(match[1], double_quant=True)
    return Method(match[0], "4-bit codes, double quantization: 4.13 bits.", _linear_only(fmt))


@register_family(r"nf4-fine-g(\d+)")
def _fine4(match: re.Match[str]) -> Method:
    size = int(match[1])
    Fine4(size)  # what cannot be is said now
    summary = f"4-bit codes in groups of {size}, an FP8 scale each."
    return Method(match[0], summary, in_groups("nf4-fine", Fine4, (size,)))


@register_family(r"fp8-e5m2")
def _float8_e5m2(match: re.Match[str]) -> Method:
    def choose(shape: tuple[int, ...], granularity: str) -> Choice:
        return Choice(Float8("float8_e5m2", granularity))

    return Method(match[0], "FP8 weights with two bits of mantissa.", choose)


@register_family(r"fp8-block-([1-9]\d{0,4})x([1-9]\d{0,4})")
def _float8_block(match: re.Match[str]) -> Method:
    fmt = BlockFloat8(rows=int(match[1]), columns=int(match[2]))
    return Method(
        match[0], f"FP8 weights, a scale for each {match[1]} x {match[2]}.", _linear_only(fmt)
    )


@register_family(r"(mxfp8|nvfp4)-weight-only")
def _block_format(match: re.Match[str]) -> Method:
    fmt = {"mxfp8": MXFP8(), "nvfp4": NVFP4()}[match[1]]
    return Method(
        match[0], f"{match[1].upper()} weights, dequantized everywhere.", _linear_only(fmt)
    )
