"""The Triton kernels against their plain twins: on a GPU, or on a CPU in Triton's interpreter,
where ``test_triton_without_gpu.py`` starts these tests."""

import os
import random
from dataclasses import replace

import pytest
import torch

from graphquant.quant_core.formats import (
    MXFP8,
    NVFP4,
    BlockFloat8,
    Code4,
    Fine4,
    Float8,
    FloatX,
    Int4,
    Int8,
    IntN,
)
from graphquant.quant_core.formats.rotated_groups import W4A8, W6A8
from graphquant.quant_core.kernels import plain
from graphquant.quant_core.kernels.triton import launch_decode, launch_products, launch_rows
from graphquant.quant_core.kernels.triton.start import has_triton
from lab.triton_interpreter import exact_casts

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
pytestmark = pytest.mark.skipif(
    not has_triton() or (DEVICE == "cpu" and not INTERPRETED),
    reason="needs Triton, and a GPU or its interpreter",
)

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
KS = (16, 100, 128, 257, 1024, 3072)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Memory that a kernel forgets to write is NaN, or 0x7f in every byte."""
    empty = torch.empty

    def poison(*shape, **options):
        made = empty(*shape, **options)
        if made.numel():
            made.view(-1).view(torch.uint8).fill_(0x7F)
            if made.dtype in FLOATS:
                made.fill_(float("nan"))
        return made

    monkeypatch.setattr(torch, "empty", poison)


@pytest.fixture(autouse=INTERPRETED)
def exact(monkeypatch):
    exact_casts(monkeypatch)


def some(seed, *shape, std=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * std).to(dtype).to(DEVICE)


def shapes(count, seed, rows=(1, 2, 3, 15, 16, 17, 33)):
    choice = random.Random(seed)
    return [(choice.choice(rows), choice.choice(KS)) for _ in range(count)]


def same_codes(one, other):
    """Equal, but that a GPU's last bit may put one code in a thousand next door."""
    a, b = (codes.view(torch.uint8).int() for codes in (one, other))
    return (a != b).sum() <= (0 if INTERPRETED else a.numel() // 1000)


@pytest.mark.parametrize("x_dtype", FLOATS)
@pytest.mark.parametrize("dtype", [torch.int8, E4M3])
def test_rows_are_quantized_like_the_twin(dtype, x_dtype):
    for seed, (m, k) in enumerate([*shapes(4, str(dtype)), (2, 12288), (2, 16385)]):
        x = some(seed, m, k, std=10.0 ** random.Random(seed).randint(-6, 3), dtype=x_dtype)
        x[0, : k // 2] = 0
        codes, scale = launch_rows.quantize_rows(x, dtype)
        expected, expected_scale = plain.quantize_rows(x, dtype)
        assert torch.allclose(scale, expected_scale, rtol=1e-6, atol=0), (m, k)
        assert same_codes(codes, expected), (m, k)


@pytest.mark.parametrize("dtype", [torch.int8, E4M3])
def test_rows_of_a_strided_view_are_read_in_place(dtype):
    x = some(0, 9, 512)[::2, 100:300]
    codes, scale = launch_rows.quantize_rows(x, dtype)
    expected, expected_scale = plain.quantize_rows(x, dtype)
    assert same_codes(codes, expected) and torch.allclose(scale, expected_scale)


@pytest.mark.parametrize("dtype", [torch.int8, E4M3])
def test_zeros_stay_zeros_and_what_is_not_finite_stays_visible(dtype):
    quantize = launch_rows.quantize_rows
    codes, scale = quantize(torch.zeros(3, 300, device=DEVICE), dtype)
    assert torch.equal(codes.float(), torch.zeros(3, 300, device=DEVICE))
    assert scale.isfinite().all()
    for value in (float("nan"), float("inf")):
        x = some(0, 3, 300)
        x[1, 299] = value
        codes, scale = quantize(x, dtype)
        rows = codes.float() * scale
        assert not rows[1].isfinite().all()
        assert rows[::2].isfinite().all()


@pytest.mark.parametrize("first", ["gelu", "swiglu"])
@pytest.mark.parametrize("dtype", [torch.int8, E4M3])
def test_what_comes_first_is_done_on_the_way(dtype, first):
    for seed, (m, k) in enumerate(shapes(2, f"{first} {dtype}")):
        x = some(seed, m, 2 * k if first == "swiglu" else k, std=2.0, dtype=torch.bfloat16)
        codes, scale = launch_rows.quantize_rows(x, dtype, first)
        expected, expected_scale = plain.quantize_rows(x, dtype, first)
        assert codes.shape == (m, k)
        assert torch.allclose(scale, expected_scale, rtol=1e-5, atol=0)
        error = (codes.float() - expected.float()).abs().max()
        assert error <= (1 if dtype == torch.int8 else 32), (m, k)


@pytest.mark.parametrize("dtype", [torch.int8, E4M3])
def test_a_loras_first_product_is_made_on_the_way(dtype):
    for m, k, rank in ((3, 100, 4), (17, 512, 16), (33, 257, 20)):
        x, down = some(m, m, k, dtype=torch.bfloat16), some(k, rank, k, dtype=torch.bfloat16)
        codes, scale, low = launch_rows.quantize_rows_low(x, dtype, down)
        expected, expected_scale, exact = plain.quantize_rows_low(x, dtype, down)
        assert torch.allclose(scale, expected_scale, rtol=1e-6, atol=0)
        assert same_codes(codes, expected)
        assert (low.float() - exact.float()).norm() < 5e-3 * exact.float().norm()


@pytest.mark.parametrize("x_dtype", FLOATS)
def test_a_static_scale_is_divided_by_like_the_twin(x_dtype):
    x, scale = some(1, 33, 257, std=50.0, dtype=x_dtype), torch.tensor(0.07, device=DEVICE)
    codes = launch_rows.quantize_by(x, scale, E4M3)
    assert same_codes(codes, plain.quantize_by(x, scale, E4M3))


# Of every way that codes, values and scales are stored.
CODED = [
    Int8(),
    Int8("per-tensor"),
    Float8(),
    Float8("float8_e5m2", "per-tensor"),
    Int4(32),
    *(IntN(bits, group_size=32) for bits in range(1, 8)),
    IntN(3, group_size=32, symmetric=True),
    Code4("nf4"),
    Code4("fp4", block_size=32, double_quant=True),
    FloatX(3, 2),
    FloatX(2, 0),
    BlockFloat8(rows=16, columns=32),
    BlockFloat8("float8_e5m2"),
    MXFP8(),
    NVFP4(),
    Fine4(),
]


def stored(fmt, seed, n, k):
    return fmt.quantize(some(seed, n, k, std=0.05).cpu()).map(lambda part: part.to(DEVICE))


@pytest.mark.parametrize("fmt", CODED, ids=str)
def test_a_stored_weight_is_decoded_like_the_twin(fmt):
    # Beyond the first tile of scales, 128 rows, where scales are in tiles; else beyond a block.
    most = 130 if fmt.coding.scales in ("swizzled", "square") else 40
    for seed, (n, k) in enumerate(((3, 32), (33, 288), (most, 544))):
        weight, dtype = stored(fmt, seed, n, k), FLOATS[seed]
        expected = fmt.dequantize(weight, dtype)
        result = launch_decode.dequantize(weight, fmt.coding, dtype)
        # A GPU may add a zero point without rounding the product before.
        close = torch.allclose(result.float(), expected.float(), rtol=2e-2, atol=1e-6)
        assert torch.equal(result, expected) if INTERPRETED else close, (n, k)
        some_rows = slice(n // 3, n)
        part = launch_decode.dequantize(weight, fmt.coding, dtype, rows=some_rows)
        assert torch.equal(part, result[some_rows])


@pytest.mark.parametrize("fmt", [W4A8, W6A8, replace(W4A8, codebook=False)], ids=str)
def test_rotated_groups_are_decoded_to_the_twins_int8_codes(fmt):
    weight = stored(fmt, 1, 33, 512)
    result = launch_decode.dequantize(weight, fmt._whole_coding(), torch.int8)
    assert torch.equal(result, fmt.int8_codes(weight.map(torch.Tensor.cpu)).to(DEVICE))


@pytest.mark.parametrize("fmt", [Int8(), Float8(), Code4("nf4"), IntN(5, group_size=32)], ids=str)
def test_a_lora_is_added_before_the_weight_is_rounded(fmt):
    for dtype, rank in ((torch.float32, 5), (torch.bfloat16, 16)):
        weight = stored(fmt, 0, 40, 160)
        up, down = (some(rank, *s, std=0.1, dtype=dtype) for s in ((40, rank), (rank, 160)))
        exact = fmt.dequantize(weight, torch.float32) + up.float() @ down.float()
        for rows in (slice(0, 40), slice(7, 40)):
            result = launch_decode.dequantize(weight, fmt.coding, dtype, up, down, rows)
            assert result.dtype == dtype
            error = (result.float() - exact[rows]).norm() / exact[rows].norm()
            assert error < (1e-6 if dtype == torch.float32 else 3e-3)


@pytest.mark.parametrize("fmt", [Int8(), Float8("float8_e5m2"), *CODED[4:6], *CODED[-8:]], ids=str)
def test_few_rows_are_multiplied_by_a_weight_as_it_is_stored(fmt):
    for (m, n, k), dtype in zip(((1, 20, 128), (20, 33, 288), (130, 48, 96)), FLOATS, strict=True):
        weight, bias = stored(fmt, m, n, k), some(m + 1, n, dtype=dtype)
        x = some(m, m, k, dtype=dtype)
        exact = x.float() @ fmt.dequantize(weight, dtype).float().T
        for some_bias in (bias, None):
            result = launch_decode.stored_linear(x, weight, fmt.coding, some_bias)
            expected = exact if some_bias is None else exact + some_bias.float()
            assert (result.dtype, result.shape) == (dtype, exact.shape)
            error = (result.float() - expected).norm() / expected.norm()
            assert error < (1e-5 if dtype == torch.float32 else 6e-3), (m, n, k)


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("in_hardware", [False, True])
def test_every_fp8_code_is_decoded_alike_in_both_ways(dtype, in_hardware, monkeypatch):
    if INTERPRETED or not in_hardware:
        monkeypatch.setattr(launch_decode, "reads_float8", lambda device: in_hardware)
    fmt = Float8(str(dtype).removeprefix("torch."))
    weight = fmt.quantize(torch.ones(2, 128)).map(lambda part: part.to(DEVICE))
    codes = torch.arange(256).to(torch.uint8).view(dtype).view(2, 128).to(DEVICE)
    weight = replace(weight, qdata=codes, scale=torch.ones(2, 1, device=DEVICE))
    result = launch_decode.dequantize(weight, fmt.coding, torch.float32)
    assert torch.equal(result.nan_to_num(nan=1e9), codes.float().nan_to_num(nan=1e9))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", [torch.int32, torch.float32])
@pytest.mark.parametrize("bias", [None, torch.float32, torch.bfloat16])
def test_products_are_scaled_like_the_twin(dtype, kind, bias):
    for seed, (m, n) in enumerate(shapes(2, f"{dtype} {kind} {bias}")):
        products = some(seed, m, n, std=1e4).to(kind)
        row = some(seed + 1, m, 1).abs()
        bias_values = None if bias is None else some(seed + 2, n).to(bias)
        for column in (some(seed + 3, 1, n).abs(), torch.full((1, 1), 0.5, device=DEVICE)):
            arguments = (products, row, column, bias_values, dtype)
            result = launch_rows.scale_products(*arguments)
            expected = plain.scale_products(*arguments)
            assert torch.allclose(result.float(), expected.float(), rtol=1e-2, atol=1e-3)


@pytest.fixture(params=["by addresses", "by descriptors"])
def loading(request, monkeypatch):
    """Both ways to load tiles, where there are two: GPUs before SM 9.0 have one."""
    if INTERPRETED and request.param == "by descriptors":
        monkeypatch.setattr(
            launch_products, "takes_descriptors", lambda *xs: all(x.stride(0) % 16 == 0 for x in xs)
        )
    if not INTERPRETED and request.param == "by addresses":
        monkeypatch.setattr(launch_products, "takes_descriptors", lambda *xs: False)


def eight_bits(seed, rows, k, kind):
    values = some(seed, rows, k, std=50.0).clamp(-128, 127)
    return values.to(kind)


@pytest.mark.parametrize(
    ("kind", "dtype", "bias", "rank"),
    [
        (torch.int8, torch.bfloat16, torch.bfloat16, 0),
        (torch.int8, torch.float16, None, 4),
        (torch.int8, torch.float32, torch.float32, 16),
        (E4M3, torch.bfloat16, torch.float32, 20),
        (E4M3, torch.float16, torch.float16, 0),
    ],
)
def test_a_product_is_scaled_and_gets_its_lora_and_bias(kind, dtype, bias, rank, loading):
    tiles = launch_products.ALL_TILES
    if kind == E4M3 and DEVICE == "cuda" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU has no FP8")
    for tile, (m, n, k) in zip(tiles, ((17, 24, 64), (70, 130, 200), (5, 66, 144)), strict=False):
        x, codes = eight_bits(m, m, k, kind), eight_bits(n, n, k, kind)
        bias_values = None if bias is None else some(k + 1, n).to(bias)
        column = torch.full((1, 1), 0.01, device=DEVICE) if bias is None else some(k, 1, n).abs()
        row = some(k, m, 1, std=0.01).abs()
        low = some(1, m, rank, std=9.0, dtype=dtype) if rank else None
        up = some(2, n, rank, std=9.0, dtype=dtype) if rank else None
        exact = (x.cpu().double() @ codes.cpu().double().T).to(DEVICE) * row * column
        exact = exact if up is None else exact + low.double() @ up.double().T
        exact = exact if bias is None else exact + bias_values.double()
        arguments = (x, codes, row, column, bias_values, dtype, low, up)
        result = launch_products.product(*arguments, tile=tile)
        assert result.dtype == dtype
        error = (result.double() - exact).norm() / exact.norm()
        assert error < (1e-6 if dtype == torch.float32 else 4e-3), (m, n, k)
