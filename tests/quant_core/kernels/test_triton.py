"""The Triton kernels against their plain twins: on a GPU, or on a CPU in Triton's interpreter,
where ``test_triton_without_gpu.py`` starts these tests."""

import os
import random

import pytest
import torch

from graphquant.quant_core.kernels import launch, launch_matmul, plain

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
pytestmark = pytest.mark.skipif(
    not launch.has_triton() or (DEVICE == "cpu" and not INTERPRETED),
    reason="needs Triton, and a GPU or its interpreter",
)

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
TYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8e4nv": E4M3,
    "fp8e5": E5M2,
}
BITS = {8: torch.uint8, 16: torch.uint16, 32: torch.uint32}
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

    monkeypatch.setattr(launch.torch, "empty", poison)


@pytest.fixture(autouse=INTERPRETED)
def exact_casts(monkeypatch):
    """Triton 3.6's interpreter cuts bits off where a GPU rounds to nearest, multiplies bfloat16 as
    the integers that numpy holds it in, and takes no range up to an argument with numpy 2.4."""
    import triton.language as tl
    from triton.runtime import interpreter

    def convert(values, source, target, rounding=None):
        numbers = torch.from_numpy(values.copy()).view(TYPES[source.name])
        return numbers.to(TYPES[target.name]).view(BITS[target.primitive_bitwidth]).numpy()

    def dot(builder, a, b, *rest):
        return multiply(builder, *(wide(x) if x.dtype == tl.bfloat16 else x for x in (a, b)), *rest)

    def wide(x):
        values = convert(x.data, tl.bfloat16, tl.float32).view("float32")
        return interpreter.TensorHandle(values, tl.float32)

    def patch_tensor(tensor, scope):
        patched(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    patched = interpreter._patch_lang_tensor
    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch_tensor)
    multiply = interpreter.InterpreterBuilder.create_dot
    monkeypatch.setattr(interpreter, "_convert_float", convert)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", dot)


def some(seed, *shape, std=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * std).to(dtype).to(DEVICE)


def shapes(count, seed, rows=(1, 2, 3, 9)):
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
        codes, scale = launch.quantize_rows(x, dtype)
        expected, expected_scale = plain.quantize_rows(x, dtype)
        assert torch.allclose(scale, expected_scale, rtol=1e-6, atol=0), (m, k)
        assert same_codes(codes, expected), (m, k)


@pytest.mark.parametrize("dtype", [torch.int8, E4M3])
def test_rows_of_a_strided_view_are_read_in_place(dtype):
    x = some(0, 9, 512)[::2, 100:300]
    codes, scale = launch.quantize_rows(x, dtype)
    expected, expected_scale = plain.quantize_rows(x, dtype)
    assert same_codes(codes, expected) and torch.allclose(scale, expected_scale)


@pytest.mark.parametrize("dtype", [torch.int8, E4M3])
def test_zeros_stay_zeros_and_what_is_not_finite_stays_visible(dtype):
    codes, scale = launch.quantize_rows(torch.zeros(3, 300, device=DEVICE), dtype)
    assert torch.equal(codes.float(), torch.zeros(3, 300, device=DEVICE))
    assert scale.isfinite().all()
    for value in (float("nan"), float("inf")):
        x = some(0, 3, 300)
        x[1, 299] = value
        codes, scale = launch.quantize_rows(x, dtype)
        rows = codes.float() * scale
        assert not rows[1].isfinite().all()
        assert rows[::2].isfinite().all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("codes_dtype", [torch.int8, E4M3, E5M2])
def test_scaled_codes_are_dequantized_bit_by_bit(codes_dtype, dtype):
    for seed, (n, k) in enumerate(shapes(3, f"{codes_dtype} {dtype}")):
        codes = some(seed, n, k, std=20.0).to(codes_dtype)
        for scale in (some(seed + 1, n, 1), torch.tensor(0.3, device=DEVICE)):
            result = launch.dequantize_scaled(codes, scale, dtype)
            assert torch.equal(result, plain.dequantize_scaled(codes, scale, dtype)), (n, k)


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_every_fp8_code_is_dequantized(dtype):
    codes = torch.arange(256).to(torch.uint8).view(dtype).view(2, 128).to(DEVICE)
    result = launch.dequantize_scaled(codes, torch.ones(2, 1, device=DEVICE), torch.float32)
    assert torch.equal(result.nan_to_num(nan=1e9), codes.float().nan_to_num(nan=1e9))


def int4_weight(seed, n, k, group):
    generator = torch.Generator().manual_seed(seed)
    packed = torch.randint(0, 256, (n, k // 2), generator=generator).to(torch.uint8).to(DEVICE)
    scale = some(seed, n, k // group, std=0.01).abs().bfloat16()
    return packed, scale, some(seed + 1, n, k // group, std=0.05).bfloat16(), group


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("n", "k", "group"), [(3, 32, 32), (17, 192, 64), (5, 4224, 128)])
def test_int4_is_dequantized_like_the_twin(n, k, group, dtype):
    weight = int4_weight(0, n, k, group)
    expected = plain.dequantize_int4(*weight, dtype)
    result = launch.dequantize_int4(*weight, dtype)
    # A GPU may add the zero point without rounding the product before.
    close = torch.allclose(result.float(), expected.float(), rtol=2e-2, atol=1e-6)
    assert torch.equal(result, expected) if INTERPRETED else close


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
            result, expected = launch.scale_products(*arguments), plain.scale_products(*arguments)
            assert torch.allclose(result.float(), expected.float(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("m", [1, 5, 16])
def test_the_small_int4_matmul_is_that_of_the_dequantized_weight(m, dtype):
    for n, k, group in ((20, 128, 32), (33, 384, 128)):
        weight = int4_weight(m, n, k, group)
        x, bias = some(m, m, k, dtype=dtype), some(m + 1, n, dtype=dtype)
        for some_bias in (None, bias):
            result = launch_matmul.int4_linear(x, *weight, some_bias)
            expected = plain.int4_linear(x, *weight, some_bias)
            assert result.dtype == dtype
            error = (result.float() - expected.float()).norm() / expected.float().norm()
            assert error < (1e-5 if dtype == torch.float32 else 1e-2)


@pytest.fixture(params=["by arithmetic", "in hardware"])
def decoding(request, monkeypatch):
    """Both ways to read FP8, where there are two."""
    in_hardware = request.param == "in hardware"
    if not in_hardware or INTERPRETED:
        monkeypatch.setattr(launch, "reads_float8", lambda device: in_hardware)


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_every_fp8_code_is_read_alike_in_both_ways(dtype, decoding):
    codes = torch.arange(256).to(torch.uint8).view(dtype).view(2, 128).to(DEVICE)
    result = launch.dequantize_scaled(codes, torch.ones(2, 1, device=DEVICE), torch.float32)
    assert torch.equal(result.nan_to_num(nan=1e9), codes.float().nan_to_num(nan=1e9))


@pytest.mark.parametrize(
    ("dtype", "codes_dtype"),
    [
        (torch.bfloat16, torch.int8),
        (torch.bfloat16, E4M3),
        (torch.bfloat16, E5M2),
        (torch.float16, E4M3),
        (torch.float32, E4M3),
    ],
)
def test_the_small_matmul_is_that_of_the_dequantized_weight(dtype, codes_dtype, decoding):
    for m, n, k in ((1, 20, 128), (5, 33, 264), (16, 48, 512)):
        codes = some(n, n, k, std=20.0).to(codes_dtype)
        x, bias = some(m, m, k, dtype=dtype), some(m + 1, n, dtype=dtype)
        of_rows, of_all = some(k, n, 1, std=0.02), torch.tensor(0.01, device=DEVICE)
        for scale, some_bias in ((of_rows, bias), (of_all, None)):
            result = launch_matmul.scaled_linear(x, codes, scale, some_bias)
            exact = x.float() @ (codes.float() * scale).T
            exact = exact if some_bias is None else exact + some_bias.float()
            assert (result.dtype, result.shape) == (dtype, exact.shape)
            error = (result.float() - exact).norm() / exact.norm()
            assert error < (1e-5 if dtype == torch.float32 else 5e-3), (m, n, k)


@pytest.fixture(params=["by addresses", "by descriptors"])
def loading(request, monkeypatch):
    """Both ways to load tiles, where there are two: GPUs before SM 9.0 have one."""
    if INTERPRETED and request.param == "by descriptors":
        monkeypatch.setattr(
            launch_matmul, "_takes_descriptors", lambda *xs: all(x.stride(0) % 16 == 0 for x in xs)
        )
    if not INTERPRETED and request.param == "by addresses":
        monkeypatch.setattr(launch_matmul, "_takes_descriptors", lambda *xs: False)


@pytest.mark.parametrize(
    ("dtype", "bias"),
    [
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32),
        (torch.float16, None),
        (torch.float32, torch.float32),
    ],
)
def test_int8_products_scaled_at_once_are_those_scaled_afterwards(dtype, bias, loading):
    wide, square = launch_matmul.TILES
    for tile, (m, n, k) in ((square, (17, 24, 64)), (wide, (130, 264, 200))):
        x = some(m, m, k, std=50.0).clamp(-128, 127).to(torch.int8)
        codes = some(n, n, k, std=50.0).clamp(-128, 127).to(torch.int8)
        bias_values = None if bias is None else some(k + 1, n).to(bias)
        column = torch.full((1, 1), 0.5, device=DEVICE) if bias is None else some(k, 1, n).abs()
        arguments = (some(k, m, 1).abs(), column, bias_values, dtype)
        products = x.cpu().int() @ codes.cpu().int().T
        expected = plain.scale_products(products, *on_cpu(*arguments))
        result = launch_matmul.int8_product(x, codes, *arguments, tile).cpu()
        assert result.dtype == dtype
        close = torch.allclose(result.float(), expected.float(), rtol=1e-2, atol=1e-3)
        assert torch.equal(result, expected) if INTERPRETED else close, (m, n, k)


def on_cpu(*values):
    return (value.cpu() if isinstance(value, torch.Tensor) else value for value in values)
