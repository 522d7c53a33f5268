"""What would run on a GPU, run on tensors that only say that they are there.

PyTorch's fake tensors check devices, dtypes, shapes and strides, the library's matmuls theirs. A
value that the CPU would have to wait for, or a constant that lies there, is an error.
"""

import inspect
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from graphquant.quant_core.formats import LlmInt8, QuantizedWeight, StaticFloat8
from graphquant.quant_core.formats.float8 import Float8
from graphquant.quant_core.formats.int4 import Int4
from graphquant.quant_core.formats.int8 import Int8
from graphquant.quant_core.kernels import (
    blocks,
    dispatch,
    int8_product,
    launch,
    launch_matmul,
    matmul,
    plain,
)
from graphquant.quant_core.kernels.launch import has_triton
from lab.formats import EVERY_FORMAT

GPU = torch.device("cuda", 0)
SHAPE = (384, 512)
ACTIVATIONS = "float8_e4m3fn"
RUNNING = [
    Int8(activations="int8"),
    Int8("per-tensor", activations="int8"),
    Float8(activations=ACTIVATIONS),
    Float8(granularity="per-tensor", activations=ACTIVATIONS),
    StaticFloat8(input_scale=0.5),
    LlmInt8(threshold=0.0),
]
FLOATS = (torch.bfloat16, torch.float16, torch.float32)
# Compute capability, and how FP8 is multiplied there.
GPUS = {"9.0": "row-wise", "8.9": "tensor-wise", "8.0": None}
# Of what only dequantizes, one of each kind.
DEQUANTIZING = {type(fmt): fmt for fmt in EVERY_FORMAT}.values()
CASES = [
    *((fmt, "9.0") for fmt in (Int8(), Float8(), Float8("float8_e5m2"), *DEQUANTIZING)),
    *(
        (fmt, gpu)
        for fmt in RUNNING
        for gpu in GPUS
        # Without an FP8 matmul nothing is planned in it, but for what has scales of activations.
        if GPUS[gpu] or type(fmt) is not Float8
    ),
]
every_case = pytest.mark.parametrize(("fmt", "gpu"), CASES, indirect=["gpu"], ids=str)


@pytest.fixture
def gpu(request, monkeypatch):
    monkeypatch.setitem(matmul._float8_ways, GPU, GPUS[request.param])
    monkeypatch.setattr(launch, "reads_float8", lambda device: request.param != "8.0")
    with FakeTensorMode():
        yield request.param


def stored(fmt):
    """A weight of ``fmt`` on the GPU, whose values nobody knows."""
    with torch._C._DisableTorchDispatch():
        parts = fmt.parts(SHAPE)
    tensors = {name: torch.empty(s, dtype=dtype, device=GPU) for name, (dtype, s) in parts.items()}
    return QuantizedWeight.of_parts(fmt, tensors, SHAPE, torch.bfloat16)


def check_linears(fmt, weight):
    for dtype in FLOATS:
        assert weight.dequantize(dtype).device == GPU
        bias = torch.empty(SHAPE[0], dtype=dtype, device=GPU)
        for size in ((1, 512), (2, 8, 512), (17, 512), (2, 150, 512)):
            x = torch.empty(size, dtype=dtype, device=GPU)
            for some in (None, bias):
                y = fmt.linear(x, weight, some)
                assert (y.device, y.dtype, y.shape) == (GPU, dtype, (*size[:-1], SHAPE[0]))
        view = torch.empty(40, 1024, dtype=dtype, device=GPU)[::2, :512]
        assert fmt.linear(view, weight, None).is_contiguous()


@every_case
def test_what_torch_compile_traces_stays_on_the_gpu(fmt, gpu):
    check_linears(fmt, stored(fmt))


class Recorder:
    """Stands in for a module of Triton kernels: checks what each is started with."""

    def __init__(self, module, started):
        self.module, self.started = module, started

    def __getattr__(self, name):
        names = inspect.signature(getattr(self.module, name).fn).parameters
        return Started(name, tuple(names), self.started)


class Started:
    def __init__(self, name, names, started):
        self.name, self.names, self.started = name, names, started
        self.grid = None

    def __getitem__(self, grid):
        self.grid = grid
        return self

    def __call__(self, *values, num_warps=4, num_stages=3, **constants):
        given = dict(zip(self.names, values, strict=False)) | constants
        assert set(given) == set(self.names), self.name
        assert all(isinstance(size, int) and size > 0 for size in self.grid)
        for name, value in given.items():
            if isinstance(value, torch.Tensor):
                assert value.device == GPU, (self.name, name)
                rows_of_a_view = (self.name, name) == ("quantize_rows", "x")
                assert value.is_contiguous() or rows_of_a_view, (self.name, name)
                assert value.stride()[-1:] in ((), (1,)), (self.name, name)
                if "scale" in name and "int4" not in self.name:
                    assert value.dtype == torch.float32, (self.name, name)
        self.started.append(self.name)


@pytest.fixture
def started(gpu, monkeypatch):
    """Names of the Triton kernels that were started, outside torch.compile."""
    from graphquant.quant_core.kernels import triton_kernels, triton_matmuls

    names = []
    for module in (dispatch, int8_product, matmul, plain, blocks):
        monkeypatch.setattr(module, "is_traced", lambda tensor: False)
    for module in (dispatch, int8_product):
        monkeypatch.setattr(module, "triton_works", lambda device: True)
    for module, kernels in ((launch, triton_kernels), (launch_matmul, triton_matmuls)):
        monkeypatch.setattr(module, "_kernels", lambda kernels=kernels: Recorder(kernels, names))
        monkeypatch.setattr(module, "on_device_of", lambda tensor: nullcontext())
    monkeypatch.setattr(launch_matmul, "_takes_descriptors", lambda *matrices: False)
    monkeypatch.setitem(launch_matmul.CHOSEN_TILES, GPU, launch_matmul.TILES[0])
    return names


@pytest.mark.skipif(not has_triton(), reason="Triton is not installed")
@every_case
def test_what_runs_outside_torch_compile_stays_on_the_gpu(fmt, gpu, started):
    check_linears(fmt, stored(fmt))


KERNELS = {
    Int8(): ["dequantize_scaled"],
    Float8(): ["dequantize_scaled"],
    Int4(128): ["dequantize_int4"],
    Int8(activations="int8"): ["quantize_rows", "int8_product"],
    Float8(activations=ACTIVATIONS): ["quantize_rows"],
}


@pytest.mark.skipif(not has_triton(), reason="Triton is not installed")
@pytest.mark.parametrize("fmt", KERNELS, ids=str)
@pytest.mark.parametrize("gpu", ["9.0"], indirect=True)
def test_a_layer_starts_these_kernels_and_no_others(fmt, started):
    weight, bias = stored(fmt), torch.empty(SHAPE[0], dtype=torch.bfloat16, device=GPU)
    x = torch.empty(1, 300, 512, dtype=torch.bfloat16, device=GPU)
    fmt.linear(x, weight, bias)
    assert started == KERNELS[fmt]
    started.clear()
    fmt.linear(x[:, :16], weight, bias)
    assert started == ["int4_linear" if isinstance(fmt, Int4) else "scaled_linear"]


@pytest.mark.skipif(not has_triton(), reason="Triton is not installed")
@pytest.mark.parametrize("gpu", ["9.0"], indirect=True)
def test_where_the_library_is_quicker_its_products_are_scaled_afterwards(started, monkeypatch):
    monkeypatch.setitem(launch_matmul.CHOSEN_TILES, GPU, None)
    fmt = Int8(activations="int8")
    x = torch.empty(300, 512, dtype=torch.bfloat16, device=GPU)
    fmt.linear(x, stored(fmt), None)
    assert started == ["quantize_rows", "scale_products"]


@pytest.mark.parametrize("gpu", ["9.0"], indirect=True)
def test_these_checks_would_find_what_they_are_for(gpu):
    fmt = Float8(activations=ACTIVATIONS)
    weight, x = stored(fmt), torch.empty(300, 512, dtype=torch.bfloat16, device=GPU)
    with pytest.raises(Exception, match="device"):
        fmt.linear(x, replace(weight, scale=torch.empty(384, 1)), None)
    with pytest.raises(RuntimeError):
        fmt.linear(x, replace(weight, qdata=weight.qdata[:380], scale=weight.scale[:380]), None)
    with pytest.raises(Exception, match="scalar"):
        x.amax().item()
