"""A GPU that is not there: code runs as on one, over tensors that have shapes and no values.

PyTorch's fake tensors check devices, dtypes, shapes and strides, the library's matmuls theirs; what
starts kernels of Triton's is checked against their signatures. ``GpuTrace`` counts.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from .gpu_trace import MIB, GpuTrace
from .pack import load_pack

load_pack()

from graphquant.quant_core.codes import minifloat, rotation  # noqa: E402
from graphquant.quant_core.formats import QuantizedWeight  # noqa: E402
from graphquant.quant_core.kernels import (  # noqa: E402
    blocks,
    device,
    dispatch,
    float8_way,
    product,
    race,
    weight_only,
)
from graphquant.quant_core.kernels.triton import (  # noqa: E402
    launch_decode,
    launch_products,
    launch_rows,
)
from graphquant.quant_core.kernels.triton.start import kernel_named  # noqa: E402


@dataclass(frozen=True)
class Gpu:
    """float8: how the library multiplies FP8 (``float8_way``). int8: whether it multiplies INT8.
    triton, dots: whether kernels run, and those that multiply. by_kernel: what wins races, or else
    the library. reads_float8: in hardware. cache: bytes of the second-level cache. four_bits: what
    it multiplies of four bits, "int4" or "nvfp4"."""

    float8: str | None = "row-wise"
    int8: bool = True
    triton: bool = True
    dots: bool = True
    by_kernel: bool = True
    reads_float8: bool = True
    float16: bool = True
    cache: int = 50 * MIB
    index: int = 0
    four_bits: str | None = None

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.index)


HOPPER = Gpu()
ADA = Gpu(cache=72 * MIB, four_bits="int4")
ADA_ON_WINDOWS = replace(ADA, float8="tensor-wise", triton=False, float16=False)
AMPERE = Gpu(None, reads_float8=False, cache=6 * MIB, four_bits="int4")
TURING = Gpu(None, dots=False, reads_float8=False, cache=5 * MIB)
RX_6000 = Gpu(None, int8=False, dots=False, reads_float8=False, cache=4 * MIB)


@dataclass
class Session:
    """What runs inside ``fake_gpu``: gpu, the trace, and names of Triton's kernels in the order in
    which they were started."""

    gpu: Gpu
    trace: GpuTrace
    started: list[str] = field(default_factory=list)

    def empty(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=self.gpu.device)

    def weight(self, fmt, shape: tuple[int, ...], dtype=torch.bfloat16) -> QuantizedWeight:
        """A weight of ``fmt`` whose values nobody knows."""
        with torch._C._DisableTorchDispatch():
            parts = fmt.parts(shape)
        tensors = {name: self.empty(*s, dtype=kind) for name, (kind, s) in parts.items()}
        return QuantizedWeight.of_parts(fmt, tensors, shape, dtype)


@contextmanager
def fake_gpu(gpu: Gpu = HOPPER, traced: bool = False) -> Iterator[Session]:
    """Inside, tensors on ``gpu.device`` can be made and computed with. traced: as torch.compile
    would, whose tracing sees plain PyTorch."""
    session = Session(gpu, GpuTrace(gpu.cache))
    known = {
        "WAYS": (float8_way, gpu.float8),
        "FLOAT16_RESULTS": (float8_way, gpu.float16),
        "INT8_WORKS": (product, gpu.int8),
        "DOTS": (device, gpu.dots),
        "TRITON_WORKS": (dispatch, gpu.triton),
        "ANSWERS": (race, _Answers(gpu.by_kernel)),
    }
    with ExitStack() as stack:
        for name, (module, value) in known.items():
            stack.enter_context(patch.dict(getattr(module, name), {gpu.device: value}))
        for module in (launch_rows, launch_decode, launch_products):
            stack.enter_context(patch.object(module, "start", _starter(session)))
        for module in (launch_decode, product):
            stack.enter_context(patch.object(module, "reads_float8", lambda _: gpu.reads_float8))
        stack.enter_context(patch.object(launch_products, "takes_descriptors", lambda *_: False))
        stack.enter_context(patch.object(weight_only, "_cache", lambda _: gpu.cache))
        if not traced:
            stack.enter_context(patch.object(blocks, "EAGER", {*blocks.EAGER, FakeTensor}))
        for table in (minifloat._kept_table, rotation._kept_matrix, launch_decode._table):
            table.cache_clear()
            stack.callback(table.cache_clear)
        stack.enter_context(FakeTensorMode())
        stack.enter_context(session.trace)
        yield session


class _Answers(dict):
    """To every race: a kernel of ours wins, or loses."""

    def __init__(self, by_kernel: bool):
        super().__init__()
        self.by_kernel = by_kernel

    def get(self, asked: str, default=None):
        if asked.startswith("weight-only"):
            return "at once" if self.by_kernel else "decoded"
        rows = int(asked.split()[-3])
        return str(launch_products.tiles_for(rows)[0]) if self.by_kernel else product.LIBRARY


_WRITTEN = {
    "quantize_rows": ("codes", "scales"),
    "quantize_rows_low": ("codes", "scales", "low"),
    "quantize_by": ("codes",),
}
_STRIDED = (("quantize_rows", "x"), ("quantize_rows_low", "x"))


def _starter(session: Session):
    def start(name, grid, x, *arguments, num_warps=4, num_stages=3, **constants):
        parameters = inspect.signature(kernel_named(name).fn).parameters
        given = dict(zip(parameters, arguments, strict=False)) | constants
        assert set(given) == set(parameters), (name, set(parameters) ^ set(given))
        assert all(isinstance(size, int) and size > 0 for size in grid), (name, grid)
        tensors = {n: value for n, value in given.items() if isinstance(value, torch.Tensor)}
        for argument, value in tensors.items():
            assert value.device == session.gpu.device, (name, argument)
            assert value.is_contiguous() or (name, argument) in _STRIDED, (name, argument)
            assert value.stride()[-1:] in ((), (1,)), (name, argument)
        session.started.append(name)
        session.trace.kernel(name, *_moved(name, given, tensors), *_work(name, given))

    return start


def _moved(name: str, given: dict, tensors: dict) -> tuple[list, list]:
    """What a kernel reads, and what it writes: an argument that stands in for one that there is
    not is a tensor that is there already."""
    outputs = [tensors[argument] for argument in _WRITTEN.get(name, ("out",))]
    seen = {id(tensor) for tensor in outputs}
    inputs = []
    for argument, tensor in tensors.items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            inputs.append(_part(argument, tensor, given) if name == "dequantize" else tensor)
    return inputs, outputs


def _part(argument: str, tensor: torch.Tensor, given: dict) -> torch.Tensor:
    """The rows FIRST to FIRST + N of a part of the weight."""
    if argument in ("table", "dynamic", "down") or tensor.dim() == 0:
        return tensor
    flat = tensor.reshape(-1)
    count = math.prod(given["codes"].shape) * 8 // given["BITS"]
    rows = max(given["N"], count // given["K"])
    first, last = (len(flat) * row // rows for row in (given["FIRST"], given["FIRST"] + given["N"]))
    return flat[first : max(last, first + 1)]


def _work(name: str, given: dict) -> tuple[int, str]:
    """FLOPs, and what multiplies."""
    sizes = math.prod(given.get(letter, 1) for letter in "MNK")
    if name == "product":
        # A LoRA's second product is of bfloat16, which takes twice as long as 8 bits.
        with_lora = 2 * sizes + 4 * given["M"] * given["N"] * given["R"]
        return with_lora, "fp8" if given["FLOATING"] else "int8"
    if name == "stored_linear":
        return 2 * sizes, "bf16"
    if name in ("dequantize", "quantize_rows_low"):
        return 2 * sizes * given["R"], "bf16"
    return 0, "bf16"
