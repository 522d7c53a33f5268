"""Rows of several stored weights become one weight of the same values."""

import pytest
import torch

from graphquant.quant_core.formats import (
    MXFP8,
    NVFP4,
    BlockFloat8,
    Code4,
    Float8,
    Int4,
    Int4Dynamic,
    Int8,
    IntN,
    LlmInt8,
    StaticFloat8,
)
from graphquant.quant_core.formats.base.stack_rows import stack_rows
from graphquant.quant_core.formats.gguf import GGUF

SAME = [
    Int8(),
    Int8("per-row", "int8"),
    Float8(),
    Float8("float8_e5m2"),
    LlmInt8(),
    Int4(64),
    IntN(3, 64),
    IntN(5, 32, symmetric=True),
    Int4Dynamic(),
    Code4("nf4"),
    Code4("fp4", 32),
]
# Scales of a tensor or a block become those of its rows.
OTHER = {
    Int8("per-tensor"): Int8("per-row"),
    Float8(granularity="per-tensor", activations="float8_e4m3fn"): Float8(
        activations="float8_e4m3fn"
    ),
    StaticFloat8(input_scale=0.5): Float8(activations="float8_e4m3fn"),
    BlockFloat8(): BlockFloat8(rows=1),
    Code4("nf4", double_quant=True): Code4("nf4"),
}


@pytest.mark.parametrize(("fmt", "expected"), [(f, f) for f in SAME] + list(OTHER.items()), ids=str)
def test_values_are_those_of_the_rows(fmt, expected, normal):
    whole = [fmt.quantize(normal(n, 192, dtype=torch.bfloat16)) for n in (48, 176, 16)]
    rows = [slice(16, 48), slice(0, 176), slice(0, 16)]
    stacked = stack_rows(list(zip(whole, rows, strict=True)))
    assert stacked.format == expected
    assert (stacked.shape, stacked.dtype) == ((224, 192), torch.bfloat16)
    found = {name: (part.dtype, tuple(part.shape)) for name, part in stacked.tensors.items()}
    assert found == stacked.format.parts(stacked.shape)
    apart = [w.dequantize(torch.float32)[r] for w, r in zip(whole, rows, strict=True)]
    assert torch.equal(stacked.dequantize(torch.float32), torch.cat(apart))


def test_ggufs_blocks_are_joined_as_they_are():
    rows = [torch.randint(0, 255, (n, 68), dtype=torch.uint8) for n in (4, 2)]
    for row in rows:
        row.view(-1, 34)[:, :2] = torch.tensor([0.5], dtype=torch.float16).view(torch.uint8)
    pieces = [GGUF("Q8_0").stored(r, (len(r), 64), torch.float16) for r in rows]
    stacked = stack_rows([(pieces[0], slice(0, 4)), (pieces[1], slice(1, 2))])
    assert torch.equal(stacked.qdata, torch.cat([rows[0], rows[1][1:]]))
    assert stacked.dequantize().shape == (5, 64)


@pytest.mark.parametrize(
    ("fmt", "k", "fault"),
    [
        (NVFP4(), 64, "has scales that several rows share"),
        (MXFP8(), 64, "has scales that several rows share"),
        (Code4("nf4"), 96, "run on over the ends of rows of 96"),
    ],
    ids=str,
)
def test_rows_that_share_scales_are_refused_in_words(fmt, k, fault, normal):
    weight = fmt.quantize(normal(32, k))
    with pytest.raises(ValueError, match=fault):
        stack_rows([(weight, slice(0, 32)), (weight, slice(0, 32))])


@pytest.mark.parametrize("other", [(Float8(), 64), (Int8(), 96)], ids=["format", "width"])
def test_weights_that_are_not_alike_are_refused_in_words(other, normal):
    fmt, k = other
    pieces = [
        (Int8().quantize(normal(8, 64)), slice(0, 8)),
        (fmt.quantize(normal(8, k)), slice(0, 8)),
    ]
    with pytest.raises(ValueError, match="are not alike"):
        stack_rows(pieces)
