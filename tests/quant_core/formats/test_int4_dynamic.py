"""INT4 weights with INT8 activations: torchao's rounding of the activations."""

import pytest
import torch
from torchao.quantization.quant_primitives import (
    MappingType,
    choose_qparams_affine,
    dequantize_affine,
    quantize_affine,
)

from graphquant.quant_core.formats import Int4Dynamic, IntN
from graphquant.quant_core.formats.int4_dynamic import round_tokens
from lab.sampling import relative_l2


def test_activations_are_rounded_as_torchao_rounds_them(normal):
    x = normal(9, 256, std=1.0)
    x[1] += 3  # no value below zero
    x[2] = 0
    block = (1, 256)
    scale, zero = choose_qparams_affine(x, MappingType.ASYMMETRIC, block, torch.int8)
    codes = quantize_affine(x, block, scale, zero, torch.int8)
    theirs = dequantize_affine(codes, block, scale, zero, torch.int8)
    assert torch.allclose(round_tokens(x), theirs, atol=1e-6)
    assert 0.004 < relative_l2(round_tokens(x[0]), x[0]) < 0.01


def test_weights_are_symmetric_integers_in_groups(normal):
    weight = normal(16, 128)
    ours, plain = Int4Dynamic().quantize(weight), IntN(4, 32, symmetric=True).quantize(weight)
    assert torch.equal(ours.qdata, plain.qdata) and torch.equal(ours.scale, plain.scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_token_keeps_its_dtype_and_its_own_scale(dtype, normal):
    x = normal(3, 4, 64, std=1.0).to(dtype)
    x[0] *= 100
    rounded = round_tokens(x)
    assert rounded.dtype == dtype
    assert torch.equal(rounded[1], round_tokens(x[1]))
