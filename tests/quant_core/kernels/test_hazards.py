"""What broke on GPUs that nobody here has: each test is red without the mend that it is for."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from graphquant.quant_core.formats import Float8, Int8, LlmInt8, StaticFloat8
from graphquant.quant_core.hardware import check_fp8_support, fp8_matmul_problem
from graphquant.quant_core.kernels import device, dispatch, float8_way, plain, product, race
from graphquant.quant_core.kernels.triton.start import has_triton
from lab.fake_gpu import ADA_ON_WINDOWS, AMPERE, HOPPER, RX_6000, TURING, Gpu, fake_gpu
from lab.sampling import relative_l2

GPU = torch.device("cuda", 0)
DYNAMIC = Float8(activations="float8_e4m3fn")
with_triton = pytest.mark.skipif(not has_triton(), reason="Triton is not installed")


def names(session):
    return [operation.name for operation in session.trace.operations]


@pytest.mark.parametrize("gpu", [TURING, AMPERE], ids=["SM 7.5", "SM 8.6"])
@pytest.mark.parametrize("rows", [1, 17, 600])
def test_a_saved_fp8_dynamic_file_runs_weight_only_where_fp8_is_not_multiplied(gpu, rows):
    with fake_gpu(gpu) as session:
        weight, x = session.weight(DYNAMIC, (384, 512)), session.empty(rows, 512)
        assert DYNAMIC.linear(x, weight, None).shape == (rows, 384)
        assert "_scaled_mm" not in names(session)
        assert "weight-only: no FP8 matmul here" in DYNAMIC.kernel(gpu.device)


def test_int8_runs_weight_only_where_neither_library_nor_triton_multiplies_it():
    fmt = Int8(activations="int8")
    with fake_gpu(RX_6000) as session:
        x = session.empty(600, 512)
        for one in (fmt, LlmInt8()):
            assert one.linear(x, session.weight(one, (384, 512)), None).shape == (600, 384)
        assert "_int_mm" not in names(session) and "product" not in names(session)
        assert "weight-only: no INT8 matmul here" in fmt.kernel(RX_6000.device)


@with_triton
def test_int8_without_the_library_is_multiplied_by_tritons_kernel():
    """As on AMD without hipBLASLt."""
    fmt = Int8(activations="int8")
    with fake_gpu(replace(HOPPER, int8=False)) as session:
        fmt.linear(session.empty(600, 512), session.weight(fmt, (384, 512)), None)
        assert session.started == ["quantize_rows", "product"]


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("what", ["INT8", "FP8"])
def test_a_library_that_refuses_is_found_out_once_and_for_all(what, monkeypatch):
    monkeypatch.setattr(torch, "_int_mm", failing(RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")))
    monkeypatch.setattr(torch, "_scaled_mm", failing(RuntimeError("no such kernel")))
    known = {"INT8": product.INT8_WORKS, "FP8": float8_way.WAYS}[what]
    monkeypatch.delitem(known, torch.device("cpu"), raising=False)
    if what == "INT8":
        assert device.found(known, torch.device("cpu"), product._try_library) is False
    else:
        assert float8_way.float8_way(torch.device("cpu")) is None
    assert not known.pop(torch.device("cpu"))


FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.")


def test_out_of_memory_in_a_trial_gives_no_verdict(monkeypatch):
    cpu = torch.device("cpu")
    for known in (float8_way.WAYS, product.INT8_WORKS, dispatch.TRITON_WORKS, race.ANSWERS):
        for where in (cpu, GPU):
            monkeypatch.delitem(known, where, raising=False)
    with monkeypatch.context() as full:
        full.setattr(torch, "_int_mm", failing(FULL))
        full.setattr(torch, "_scaled_mm", failing(FULL))
        full.setattr(dispatch.launch_rows, "quantize_rows", failing(FULL))
        assert float8_way.float8_way(cpu) is None and cpu not in float8_way.WAYS
        assert device.found(product.INT8_WORKS, cpu, product._try_library) is None
        assert not dispatch.triton_works(cpu) and cpu not in dispatch.TRITON_WORKS
        full.setattr(float8_way.torch, "ones", failing(FULL))
        # That the device is there is not what is tried here.
        full.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
        assert fp8_matmul_problem(GPU).startswith("CUDA out of memory")
        assert check_fp8_support(GPU) is False and GPU not in float8_way.WAYS
        full.setattr(race, "_race", failing(FULL))
        assert race.winner("what", cpu, {"first": lambda: None, "second": lambda: None}) == "first"
        assert race.known_winner("what", cpu) is None
    assert float8_way.float8_way(cpu) == "tensor-wise"  # asked again, with memory
    float8_way.WAYS.pop(cpu)


def test_nothing_is_tried_while_a_cuda_graph_is_captured(monkeypatch):
    for known in (float8_way.WAYS, product.INT8_WORKS, race.ANSWERS):
        monkeypatch.delitem(known, GPU, raising=False)
    for module in (device, race):
        monkeypatch.setattr(module, "is_captured", lambda: True)
    monkeypatch.setattr(race, "_folder", lambda device: None)
    assert float8_way.float8_way(GPU) is None and GPU not in float8_way.WAYS
    ways = {"first": failing(AssertionError), "second": failing(AssertionError)}
    assert race.winner("what", GPU, ways) == "first"
    race.ANSWERS.pop(GPU, None)


@pytest.mark.parametrize(
    ("architecture", "hip", "multiplies"),
    [
        ((7, 0), None, False),
        ((7, 5), None, False),
        ((8, 0), None, True),
        ((12, 0), None, True),
        ("gfx1030", "7.1", False),
        ("gfx1031", "7.1", False),
        ("gfx906", "7.1", False),
        ("gfx90a:sramecc+", "7.1", True),
        ("gfx942", "7.1", True),
        ("gfx1100", "7.1", True),
        ("gfx1201", "7.1", True),
    ],
    ids=str,
)
def test_triton_multiplies_on_gpus_with_a_matrix_instruction_alone(
    architecture, hip, multiplies, monkeypatch
):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: architecture)
    found = SimpleNamespace(gcnArchName=architecture)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: found)
    monkeypatch.delitem(device.DOTS, GPU, raising=False)
    assert device.multiplies_in_triton(GPU) is multiplies
    device.DOTS.pop(GPU)


MULTIPLYING = {"stored_linear", "product", "quantize_rows_low"}


@with_triton
@pytest.mark.parametrize("gpu", [TURING, RX_6000], ids=["Turing", "gfx10"])
def test_no_kernel_that_multiplies_starts_without_a_matrix_instruction(gpu):
    with fake_gpu(gpu) as session:
        for fmt in (Int8(), Int8(activations="int8"), DYNAMIC, StaticFloat8(input_scale=1.0)):
            weight, bias = session.weight(fmt, (384, 512)), session.empty(384)
            low = session.empty(384, 16), session.empty(16, 512)
            for rows in (1, 20, 600):
                x = session.empty(rows, 512)
                fmt.linear(x, weight, bias)
                fmt.linear_with_low_rank(x, weight, bias, *low)
        assert not MULTIPLYING & set(session.started)
        assert "dequantize" in session.started  # what moves bytes alone runs there


def test_a_compiler_that_fails_is_told_in_one_line(monkeypatch, caplog):
    long = RuntimeError("no kernel image\n" + 270 * "and a line of IR\n")
    monkeypatch.setattr(dispatch.launch_rows, "quantize_rows", failing(long))
    with caplog.at_level(logging.WARNING):
        assert dispatch._try_triton(torch.device("cpu")) is False
    assert [record.getMessage().count("\n") for record in caplog.records] == [0]


def test_on_windows_fp8_is_multiplied_in_bfloat16_not_in_float32():
    """Without row-wise scales the bare products are written and read again."""
    with fake_gpu(replace(ADA_ON_WINDOWS, triton=True, by_kernel=False)) as session:
        weight = session.weight(DYNAMIC, (3072, 3072))
        DYNAMIC.linear(session.empty(4096, 3072), weight, session.empty(3072))
        (product,) = [op for op in session.trace.operations if op.name == "_scaled_mm"]
        assert product.written == 4096 * 3072 * 2


@pytest.mark.parametrize(("float16", "passes"), [(True, 0), (False, 2)])
def test_a_float16_model_gets_its_product_in_float16_where_pytorch_writes_it(float16, passes):
    gpu = replace(HOPPER, float16=float16, by_kernel=False)
    with fake_gpu(gpu) as session:
        weight = session.weight(DYNAMIC, (384, 512), torch.float16)
        x = session.empty(600, 512, dtype=torch.float16)
        y = DYNAMIC.linear(x, weight, session.empty(384, dtype=torch.float16))
        assert y.dtype == torch.float16
        after = names(session)[names(session).index("_scaled_mm") + 1 :]
        assert len(after) == passes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("codes_dtype", [torch.int8, torch.float8_e4m3fn])
def test_a_scale_a_tensor_is_multiplied_in_float32(codes_dtype, dtype, normal):
    """PyTorch rounds one without dimensions to bfloat16 before: 0.39 % off."""
    codes, scale = normal(8, 64, std=20.0).to(codes_dtype), torch.tensor(1.0 / 3)
    expected = (codes.float() * scale).to(dtype)
    for traced in (False, True):
        given = codes.as_subclass(Subclass) if traced else codes
        result = plain.dequantize_scaled(given, scale, dtype)
        assert torch.equal(result.as_subclass(torch.Tensor), expected)


class Subclass(torch.Tensor):
    """As what torch.compile traces with: its operations are those of a GPU."""


def test_more_outliers_than_a_gpu_computes_apart_are_rounded_with_the_others(normal):
    """On fake tensors no value is seen: the GPU's way is run on a CPU's."""
    fmt, x = LlmInt8(), normal(32, 256, std=1.0, seed=1)
    x[:, [7, 200]] *= 40
    stored = fmt.quantize(normal(64, 256))
    exact = x @ stored.dequantize(torch.float32).T
    few = relative_l2(fmt._split(x, stored, None, x.abs().amax(0).topk(32).indices), exact)
    one = relative_l2(fmt._split(x, stored, None, x.abs().amax(0).topk(1).indices), exact)
    assert few < 0.01 < one < 0.1


@with_triton
def test_kernels_start_on_the_gpu_of_their_tensors_and_on_its_current_stream(monkeypatch):
    from graphquant.quant_core.kernels.triton import start

    entered = []

    class Device:
        def __init__(self, place):
            self.place = place

        def __enter__(self):
            entered.append(self.place)

        def __exit__(self, *_):
            entered.append(None)

    class Kernel(dict):
        def __getitem__(self, grid):
            return lambda *arguments, **constants: entered.append((grid, arguments, constants))

    monkeypatch.setattr(torch.cuda, "device", Device)
    monkeypatch.setattr(start, "kernel_named", lambda name: Kernel())
    second = torch.device("cuda", 1)
    start.start("any", (3,), SimpleNamespace(device=second, is_cuda=True), 1, BLOCK=2)
    # No stream is named: Triton takes the current one of the current device.
    assert entered == [second, ((3,), (1,), {"BLOCK": 2}), None]


def test_each_gpu_has_its_own_verdicts():
    first, second = Gpu(), replace(AMPERE, index=1)
    with fake_gpu(first) as session:
        assert DYNAMIC.kernel(first.device).startswith("fp8 x fp8")
        session.trace.hold()
    with fake_gpu(second):
        assert DYNAMIC.kernel(second.device).startswith("dequantize")
