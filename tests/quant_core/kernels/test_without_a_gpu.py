"""What would run on a GPU, run on tensors that only say that they are there.

A value that the CPU would have to wait for, a constant that lies there, or an operand that the
library's matmuls refuse is an error.
"""

from dataclasses import replace

import pytest
import torch

from graphquant.quant_core.formats import LlmInt8, StaticFloat8
from graphquant.quant_core.formats.float8 import Float8
from graphquant.quant_core.formats.int4 import Int4
from graphquant.quant_core.formats.int8 import Int8
from graphquant.quant_core.kernels.triton.start import has_triton
from lab.fake_gpu import ADA_ON_WINDOWS, AMPERE, HOPPER, RX_6000, TURING, fake_gpu
from lab.formats import EVERY_FORMAT
from lab.gpu_trace import WaitsForTheGpuError

SHAPE = (384, 512)
ACTIVATIONS = "float8_e4m3fn"
RUNNING = [
    Int8(activations="int8"),
    Int8("per-tensor", activations="int8"),
    Float8(activations=ACTIVATIONS),
    Float8(granularity="per-tensor", activations=ACTIVATIONS),
    StaticFloat8(input_scale=0.5),
    LlmInt8(threshold=0.0),
    LlmInt8(),
]
FLOATS = (torch.bfloat16, torch.float16, torch.float32)
WINDOWS_WITH_TRITON = replace(ADA_ON_WINDOWS, triton=True)
GPUS = {
    "Hopper": HOPPER,
    "Hopper by the library": replace(HOPPER, by_kernel=False),
    "Ada on Windows": ADA_ON_WINDOWS,
    "Ampere": AMPERE,
    "Turing": TURING,
    "RX 6000": RX_6000,
    "the second of two": replace(HOPPER, index=1),
}
# Of what only dequantizes, one of each kind.
DEQUANTIZING = list({type(fmt): fmt for fmt in EVERY_FORMAT}.values())
CASES = [
    *((fmt, "Hopper") for fmt in (Float8(), Float8("float8_e5m2"), *DEQUANTIZING)),
    *((fmt, "Ada on Windows") for fmt in DEQUANTIZING),
    *((fmt, "the second of two") for fmt in (Int8(), Int4(128), RUNNING[0], RUNNING[2])),
    *((fmt, gpu) for fmt in RUNNING for gpu in list(GPUS)[:-1]),
]
every_case = pytest.mark.parametrize(("fmt", "gpu"), CASES, ids=str)
with_triton = pytest.mark.skipif(not has_triton(), reason="Triton is not installed")


def check_linears(session, fmt, dtypes=FLOATS):
    weight, gpu = session.weight(fmt, SHAPE), session.gpu.device
    for dtype in dtypes:
        assert weight.dequantize(dtype).device == gpu
        bias = session.empty(SHAPE[0], dtype=dtype)
        up, down = session.empty(SHAPE[0], 16, dtype=dtype), session.empty(16, 512, dtype=dtype)
        for size in ((1, 512), (2, 8, 512), (17, 512), (2, 300, 512)):
            x = session.empty(*size, dtype=dtype)
            results = [fmt.linear(x, weight, some) for some in (None, bias)]
            results.append(fmt.linear_with_low_rank(x, weight, bias, up, down))
            for y in results:
                assert (y.device, y.dtype, y.shape) == (gpu, dtype, (*size[:-1], SHAPE[0]))
        view = session.empty(40, 1024, dtype=dtype)[::2, :512]
        assert fmt.linear(view, weight, None).is_contiguous()


@every_case
def test_what_torch_compile_traces_stays_on_the_gpu(fmt, gpu):
    with fake_gpu(GPUS[gpu], traced=True) as session:
        check_linears(session, fmt, (torch.bfloat16, torch.float16))


@with_triton
@every_case
def test_no_linear_waits_for_the_gpu_or_leaves_it(fmt, gpu):
    """So that a CUDA graph can capture it; ``test_these_checks_would_find`` what does."""
    with fake_gpu(GPUS[gpu]) as session:
        check_linears(session, fmt)


KERNELS = {
    Int8(): ["dequantize"],
    Float8(): ["dequantize"],
    Int4(128): ["dequantize"],
    Int8(activations="int8"): ["quantize_rows", "product"],
    Float8(activations=ACTIVATIONS): ["quantize_rows", "product"],
    LlmInt8(threshold=0.0): ["product"],
}
WITH_LORA = {
    **KERNELS,
    Int8(activations="int8"): ["quantize_rows_low", "product"],
    Float8(activations=ACTIVATIONS): ["quantize_rows_low", "product"],
}


@with_triton
@pytest.mark.parametrize("fmt", KERNELS, ids=str)
def test_a_layer_starts_these_kernels_and_no_others(fmt):
    with fake_gpu() as session:
        weight, bias = session.weight(fmt, SHAPE), session.empty(SHAPE[0])
        x = session.empty(1, 600, 512)
        fmt.linear(x, weight, bias)
        assert session.started == KERNELS[fmt]
        session.started.clear()
        fmt.linear_with_low_rank(x, weight, bias, session.empty(384, 16), session.empty(16, 512))
        assert session.started == WITH_LORA[fmt]
        session.started.clear()
        fmt.linear(x[:, :16], weight, bias)
        assert session.started == ["stored_linear"]


@with_triton
def test_where_the_library_is_quicker_its_products_are_scaled_afterwards():
    fmt = Int8(activations="int8")
    with fake_gpu(replace(HOPPER, by_kernel=False)) as session:
        fmt.linear(session.empty(300, 512), session.weight(fmt, SHAPE), None)
        assert session.started == ["quantize_rows", "scale_products"]


def test_these_checks_would_find_what_they_are_for():
    fmt = Float8(activations=ACTIVATIONS)
    with fake_gpu(replace(HOPPER, by_kernel=False)) as session:
        weight, x = session.weight(fmt, SHAPE), session.empty(300, 512)
        with pytest.raises((AssertionError, RuntimeError)):
            fmt.linear(x, replace(weight, scale=torch.empty(384, 1)), None)
        with pytest.raises(RuntimeError):
            short = replace(weight, qdata=weight.qdata[:380], scale=weight.scale[:380])
            fmt.linear(x, short, None)
        for waits in (
            lambda: x.amax().item(),
            lambda: x.nonzero(),
            lambda: x.cpu(),
            lambda: bool(x.isnan().any()),
            lambda: x[x > 0],
            lambda: x.copy_(torch.zeros(300, 512)),
        ):
            with pytest.raises(WaitsForTheGpuError):
                waits()
