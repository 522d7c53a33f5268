"""What every format must do, whatever its arithmetic."""

import math

import pytest
import torch
import torch.nn.functional as F

from graphquant.quant_core import NonFiniteWeightError
from graphquant.quant_core.formats import (
    MXFP8,
    NVFP4,
    BlockFloat8,
    Code4,
    Float8,
    FloatX,
    Int4,
    Int8,
    IntN,
    base,
    format_from_dict,
)
from graphquant.quant_core.kernels import blocks
from lab.formats import EACH_KIND, FIGURES
from lab.sampling import relative_l2

FORMATS = [
    Int8(),
    Int8("per-tensor"),
    Int8(activations="int8"),
    Float8(),
    Float8(granularity="per-tensor"),
    Float8(dtype="float8_e5m2"),
    Float8(activations="float8_e4m3fn"),
    Int4(128),
    Int4(64, "minmax"),
    Int4(32, "hqq"),
    *EACH_KIND,
]
WITH_CONVOLUTIONS = [fmt for fmt in FORMATS if isinstance(fmt, Int8 | Float8)]

every_format = pytest.mark.parametrize("fmt", FORMATS, ids=repr)


def bound(fmt):
    """A generous tenth for what rounds to four bits and more; else what the format is known for."""
    return max(0.1, 1.1 * FIGURES[fmt].error if fmt in FIGURES else 0.0)


def equal(one, other):
    parts = zip(one.tensors.values(), other.tensors.values(), strict=True)
    return all(torch.equal(a.float(), b.float()) for a, b in parts)


@every_format
def test_a_format_is_a_value_that_json_can_hold(fmt):
    assert format_from_dict(fmt.to_dict()) == fmt
    assert hash(format_from_dict(fmt.to_dict())) == hash(fmt)
    assert all(isinstance(value, str | int | float | None) for value in fmt.to_dict().values())


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "int_n", "bits": 3.0},
        {"kind": "int_n", "symmetric": 1},
        {"kind": "int4", "group_size": "64"},
        {"kind": "code4", "code": None},
        {"kind": "float8", "dtype": ["float8_e4m3fn"]},
    ],
)
def test_values_of_other_types_than_a_format_writes_are_a_type_error(values):
    """A file's values are a stranger's: 3.0 bits would pass every comparison of shapes."""
    with pytest.raises(TypeError, match=f" of {values['kind']} is "):
        format_from_dict(values)


def test_every_kind_that_files_may_name_is_tested_here():
    others = {"cast_float8", "static_float8", "gguf"}  # which need more than a weight, or less
    assert set(base.FORMATS) - {fmt.kind for fmt in FORMATS} <= others


@pytest.mark.parametrize(
    "make",
    [
        lambda: IntN(0),
        lambda: IntN(8),
        lambda: IntN(3, 0),
        lambda: IntN(1, symmetric=True),
        lambda: FloatX(0, 4),
        lambda: FloatX(1, 0),
        lambda: FloatX(4, 3),
        lambda: Code4("nf5"),
        lambda: Code4(block_size=63),
        lambda: BlockFloat8(rows=0),
        lambda: BlockFloat8("float16"),
        lambda: NVFP4("int8"),
        lambda: MXFP8("nvfp4"),
    ],
)
def test_a_format_that_cannot_be_is_a_value_error(make):
    with pytest.raises(ValueError, match=r"[Nn]o |[Nn]ot a |Symmetric"):
        make()


def test_an_unknown_kind_is_a_key_error():
    with pytest.raises(KeyError, match="int3"):
        format_from_dict({"kind": "int3"})


@every_format
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dequantize_gives_the_shape_and_dtype_that_went_in_or_the_one_asked_for(fmt, dtype, normal):
    weight = fmt.quantize(normal(48, 256, dtype=dtype))
    assert (weight.shape, weight.dtype) == ((48, 256), dtype)
    assert weight.dequantize().dtype == dtype
    assert weight.dequantize().shape == (48, 256)
    for other in (torch.float32, torch.bfloat16, torch.float16):
        assert torch.equal(weight.dequantize(other), weight.dequantize(torch.float32).to(other))


@every_format
def test_quantizing_loses_something_and_no_more_than_a_tenth(fmt, normal):
    weight = normal(64, 512)
    assert 1e-3 < relative_l2(fmt.quantize(weight).dequantize(), weight) < bound(fmt)


@every_format
@pytest.mark.parametrize("shape", [(24, 128), (1, 384), (1000, 640)])
def test_nbytes_is_what_the_tensors_hold(fmt, shape, normal):
    weight = fmt.quantize(normal(*shape))
    stored = sum(part.untyped_storage().nbytes() for part in weight.tensors.values())
    assert weight.nbytes == fmt.nbytes(shape) == stored


@pytest.mark.parametrize(
    "fmt",
    [fmt for fmt in EACH_KIND if not (hasattr(fmt, "group_size") or hasattr(fmt, "rotation"))],
    ids=repr,
)
@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (130, 17), (200, 336)])
def test_a_matrix_of_any_shape_is_stored_to_the_byte_and_comes_back(fmt, shape, normal):
    exact = normal(*shape)
    weight = fmt.quantize(exact)
    stored = sum(part.untyped_storage().nbytes() for part in weight.tensors.values())
    assert weight.nbytes == fmt.nbytes(shape) == stored
    assert fmt.parts(shape) == {n: (t.dtype, tuple(t.shape)) for n, t in weight.tensors.items()}
    assert weight.dequantize().shape == shape
    assert weight.dequantize().is_contiguous()
    assert relative_l2(weight.dequantize(), exact) < 1.3 * FIGURES[fmt].error
    x = normal(5, shape[1], std=1.0, seed=1)
    expected = F.linear(x, weight.dequantize())
    assert relative_l2(fmt.linear(x, weight, None), expected) < 0.02


@pytest.mark.parametrize("fmt", WITH_CONVOLUTIONS, ids=repr)
@pytest.mark.parametrize("shape", [(12, 5, 3), (12, 5, 3, 3), (12, 5, 3, 3, 3)])
def test_a_convolution_is_quantized_as_the_matrix_of_its_output_channels(fmt, shape, normal):
    kernel = normal(*shape)
    weight, matrix = fmt.quantize(kernel), fmt.quantize(kernel.reshape(12, -1))
    assert torch.equal(weight.dequantize(), matrix.dequantize().reshape(shape))
    assert weight.scale.shape == ((12, *[1] * (len(shape) - 1)) if "row" in fmt.granularity else ())
    assert weight.nbytes == fmt.nbytes(shape) == math.prod(shape) + 4 * weight.scale.numel()
    assert relative_l2(weight.dequantize(), kernel) < 0.06


@pytest.mark.parametrize("fmt", WITH_CONVOLUTIONS, ids=repr)
def test_a_channels_last_kernel_gives_the_same_codes(fmt, normal):
    kernel = normal(8, 6, 3, 3)
    other = fmt.quantize(kernel.to(memory_format=torch.channels_last))
    assert torch.equal(other.dequantize(), fmt.quantize(kernel).dequantize())


@every_format
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_value_that_is_not_finite_is_refused(fmt, value, dtype, normal):
    weight = normal(8, 256, dtype=dtype)
    weight[7, 255] = value
    with pytest.raises(NonFiniteWeightError, match="holds NaN or infinity"):
        fmt.quantize(weight)


@every_format
def test_an_all_zero_row_comes_back_as_zeros_and_the_others_are_not_disturbed(fmt, normal):
    weight = normal(8, 256)
    weight[3] = 0
    result = fmt.quantize(weight).dequantize()
    assert torch.equal(result[3], torch.zeros(256))
    assert relative_l2(result, weight) < bound(fmt)


@every_format
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_all_zero_weight_comes_back_as_zeros(fmt, dtype):
    weight = fmt.quantize(torch.zeros(4, 128, dtype=dtype))
    assert torch.equal(weight.dequantize(), torch.zeros(4, 128, dtype=dtype))
    assert all(part.float().isfinite().all() for part in weight.tensors.values())


@every_format
def test_weights_of_any_magnitude_lose_the_same_share(fmt, normal):
    """A power of two changes exponents alone, so the codes must be the same."""
    usual, tiny = fmt.quantize(normal(16, 256)), fmt.quantize(normal(16, 256) * 2.0**-20)
    assert torch.equal(usual.qdata.float(), tiny.qdata.float())
    assert torch.equal(usual.dequantize(), tiny.dequantize() * 2.0**20)


@every_format
def test_a_transposed_or_strided_weight_gives_the_codes_of_its_contiguous_copy(fmt, normal):
    transposed, strided = normal(256, 40).t(), normal(80, 512)[::2, ::2]
    for weight in (transposed, strided):
        assert not weight.is_contiguous()
        assert equal(fmt.quantize(weight), fmt.quantize(weight.contiguous()))


@every_format
def test_the_weight_that_is_quantized_is_only_read(fmt, normal):
    weight = normal(16, 256)
    fmt.quantize(weight)
    assert torch.equal(weight, normal(16, 256))


@every_format
def test_a_matrix_of_many_blocks_gives_the_codes_of_one_block(fmt, normal, monkeypatch):
    weight = normal(300, 1280)
    many = fmt.quantize(weight)
    assert len(list(base.row_blocks(weight))) > 1
    monkeypatch.setattr(blocks, "_CPU_BLOCK", weight.numel())
    assert len(list(base.row_blocks(weight))) == 1
    one = fmt.quantize(weight)
    assert equal(many, one)
    monkeypatch.setattr(blocks, "_CPU_BLOCK", 1)
    assert torch.equal(many.dequantize(), one.dequantize())


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (1000, 1000), (3, 300_000)])
def test_blocks_hold_every_row_once_and_in_order(shape):
    matrix = torch.arange(shape[0]).unsqueeze(1).expand(shape)
    rows = torch.cat([matrix[block, 0] for block in base.row_blocks(matrix)])
    assert torch.equal(rows, torch.arange(shape[0]))


@every_format
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_is_near_the_float_product_and_adds_the_bias_by_position_and_by_keyword(
    fmt, dtype, normal
):
    exact, x = normal(48, 256), normal(2, 9, 256, std=1.0, seed=1)
    bias = normal(48, std=1.0, seed=2).to(dtype)
    weight = fmt.quantize(exact.to(dtype))
    plain = fmt.linear(x.to(dtype), weight, None)
    assert (plain.shape, plain.dtype) == ((2, 9, 48), dtype)
    assert 1e-3 < relative_l2(plain, F.linear(x, exact)) < bound(fmt)
    biased = fmt.linear(x.to(dtype), weight, bias)
    assert torch.equal(biased, fmt.linear(x.to(dtype), weight=weight, bias=bias))
    assert relative_l2(biased.float() - plain.float(), bias.float().expand_as(biased)) < 0.01


@every_format
def test_linear_computes_in_the_dtype_of_its_input_whatever_the_weights(fmt, normal):
    x = normal(5, 256, std=1.0, seed=1)
    weight = fmt.quantize(normal(48, 256, dtype=torch.bfloat16))
    y = fmt.linear(x, weight, None)
    assert y.dtype == torch.float32
    assert not torch.equal(y, y.bfloat16().float())


@every_format
def test_linear_takes_a_single_vector_and_no_rows_at_all(fmt, normal):
    weight, x = fmt.quantize(normal(48, 256)), normal(3, 256, std=1.0)
    assert relative_l2(fmt.linear(x[1], weight, None), fmt.linear(x, weight, None)[1]) < 1e-6
    assert fmt.linear(x[:0], weight, None).shape == (0, 48)


@every_format
def test_an_all_zero_token_gives_the_bias_alone(fmt, normal):
    x, bias = normal(6, 256, std=1.0), normal(48, std=1.0, seed=2)
    x[2] = 0
    y = fmt.linear(x, fmt.quantize(normal(48, 256)), bias)
    assert torch.equal(y[2], bias)
    assert y.isfinite().all()
    assert relative_l2(y[0], bias) > 0.1


@pytest.mark.parametrize(
    "fmt", [fmt for fmt in FORMATS if not getattr(fmt, "activations", None)], ids=repr
)
def test_a_format_without_activations_dequantizes_everywhere(fmt):
    for device in ("cpu", "cuda", "mps"):
        assert fmt.kernel(torch.device(device)) == "dequantize + matmul"


def test_map_applies_to_every_stored_tensor(normal):
    weight = Int4(128).quantize(normal(8, 256))
    moved = weight.map(lambda part: part.to("meta"))
    assert {part.device.type for part in moved.tensors.values()} == {"meta"}
    assert (moved.format, moved.shape, moved.dtype) == (weight.format, weight.shape, weight.dtype)
    assert set(moved.tensors) == {"qdata", "scale", "zero_point"}
