"""What formats say about activations: whether they round them, and who else would."""

import pytest
import torch
import torch.nn.functional as F

from graphquant.quant_core.formats import (
    MXFP8,
    NVFP4,
    CastFloat8,
    Float8,
    Int4,
    Int4Dynamic,
    Int8,
    Int8ConvRot,
    IntN,
    LlmInt8,
    QuantizedWeight,
    RotatedGroups,
    StaticFloat8,
)
from graphquant.quant_core.formats.rotated_groups import rotated_groups
from lab.formats import EVERY_FORMAT

FP8 = "float8_e4m3fn"
ROUNDING = {
    Int8(activations="int8"): Int8(),
    Int8("per-tensor", "int8"): Int8("per-tensor"),
    Float8(activations=FP8): Float8(),
    StaticFloat8(input_scale=0.5): Float8(granularity="per-tensor"),
    NVFP4("nvfp4"): NVFP4(),
    MXFP8("mxfp8"): MXFP8(),
    Int4Dynamic(): IntN(4, 32, symmetric=True),
    LlmInt8(): Int8(),
    Int8ConvRot(16, "int8"): Int8ConvRot(16),
    rotated_groups(4, 16): RotatedGroups(4, rotation=16),
    rotated_groups(6, 16): RotatedGroups(6, rotation=16, codebook=False),
}


@pytest.mark.parametrize(("fmt", "twin"), ROUNDING.items(), ids=str)
def test_the_weight_only_twin_reads_the_same_codes_and_rounds_no_activation(fmt, twin, normal):
    assert fmt.activations and fmt.weight_only() == twin and twin.activations is None
    stored = fmt.quantize(normal(32, 64))
    parts = {name: part for name, part in stored.tensors.items() if name in twin.parts((32, 64))}
    read = QuantizedWeight.of_parts(twin, parts, (32, 64), stored.dtype)
    assert torch.equal(read.dequantize(), stored.dequantize())
    x = normal(3, 64, std=1.0, seed=1)
    assert torch.allclose(twin.linear(x, read, None), F.linear(x, read.dequantize()), atol=1e-6)


@pytest.mark.parametrize("fmt", [f for f in EVERY_FORMAT if not f.activations], ids=repr)
def test_a_format_that_rounds_no_activation_is_its_own_twin(fmt):
    assert fmt.activations is None
    assert fmt.weight_only() is fmt or fmt.weight_only() == fmt


def test_fp8_activations_alone_need_fp8_matmuls():
    needing = {fmt for fmt in (*ROUNDING, *EVERY_FORMAT) if fmt.needs_fp8_matmul}
    assert needing == {Float8(activations=FP8), StaticFloat8()}


def test_a_measured_maximum_becomes_the_scale_of_the_format_that_asks_for_one():
    asking = [fmt for fmt in (*ROUNDING, *EVERY_FORMAT) if fmt.needs_input_scale]
    assert asking == [StaticFloat8()]
    assert StaticFloat8().with_activation_maximum(896.0).input_scale == 2.0
    assert StaticFloat8().with_activation_maximum(0.0).input_scale > 0
    assert Int8().with_activation_maximum(3.0) == Int8()


def test_comfyui_alone_rounds_the_activations_of_int8_and_of_no_other_weight_only_format():
    formats = (*ROUNDING, *EVERY_FORMAT, Float8(granularity="per-tensor"), CastFloat8())
    rounded = {fmt for fmt in formats if fmt.stock_rounds_activations}
    assert rounded == {Int8(), Int8("per-tensor")}


@pytest.mark.parametrize("fmt", EVERY_FORMAT, ids=repr)
def test_an_algorithm_for_ranges_changes_int4_alone(fmt):
    changed = fmt.with_algorithm("minmax")
    assert changed == (Int4(fmt.group_size, "minmax") if isinstance(fmt, Int4) else fmt)
