"""What a GPU would be asked to do, counted on tensors that only say that they lie on one.

``GpuTrace`` sees every operation of PyTorch's and every kernel of Triton's that code starts, with
the bytes each reads and writes, its multiplications, and what memory is held meanwhile. What makes
the CPU wait for a GPU, or breaks a CUDA graph, is an error.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MIB = 2**20


class WaitsForTheGpuError(AssertionError):
    """An operation that the CPU would have to wait for."""


@dataclass(frozen=True)
class Operation:
    """read, written: bytes. memory: those that pass the GPU's second-level cache. kind: what is
    multiplied, "bf16", "fp8", "int8", "int4", "fp4", "fp32", or "attention"."""

    name: str
    read: int
    written: int
    memory: int
    flops: int = 0
    kind: str = "bf16"


@dataclass
class Cache:
    """A second-level cache of ``size`` bytes: pieces of tensors, the one used last kept longest."""

    size: int
    pieces: OrderedDict = field(default_factory=OrderedDict)
    held: int = 0

    def read(self, piece: tuple, nbytes: int) -> int:
        """Bytes that memory moves."""
        if piece in self.pieces:
            self.pieces.move_to_end(piece)
            return 0
        return nbytes + self._keep(piece, nbytes, dirty=False)

    def write(self, piece: tuple, nbytes: int) -> int:
        if piece in self.pieces:
            self.held -= self.pieces.pop(piece)[0]
        return self._keep(piece, nbytes, dirty=True)

    def forget(self, storage: int) -> None:
        """What is freed is never written back."""
        for piece in [piece for piece in self.pieces if piece[0] == storage]:
            self.held -= self.pieces.pop(piece)[0]

    def flush(self) -> int:
        written = sum(nbytes for nbytes, dirty in self.pieces.values() if dirty)
        self.pieces.clear()
        self.held = 0
        return written

    def _keep(self, piece: tuple, nbytes: int, dirty: bool) -> int:
        if nbytes > self.size:
            return nbytes if dirty else 0
        self.pieces[piece] = (nbytes, dirty)
        self.held += nbytes
        moved = 0
        while self.held > self.size:
            _, (old, was_dirty) = self.pieces.popitem(last=False)
            self.held -= old
            moved += old if was_dirty else 0
        return moved


# What reads no more of its first argument than it gives.
_GATHERS = {"index_select", "gather", "embedding", "index", "take"}
_MAKES_NOTHING = {"empty", "empty_like", "empty_strided", "new_empty", "detach"}
_OVERWRITES = {"copy_", "fill_", "zero_", "normal_"}


class GpuTrace(TorchDispatchMode):
    """operations: what was started. peak: the most bytes held at a time, beside what ``hold`` was
    told of. cache: bytes of the second-level cache. may_wait: code that is not a linear may ask
    for a value, and is told 1."""

    def __init__(self, cache: int = 32 * MIB, may_wait: bool = False):
        super().__init__()
        self.may_wait = may_wait
        self.operations: list[Operation] = []
        self.cache = Cache(cache)
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.held = self.peak = 0

    def hold(self, *tensors: torch.Tensor) -> None:
        """Count ``tensors`` as held from now on."""
        for tensor in tensors:
            self._note(tensor)

    @property
    def memory(self) -> int:
        """Bytes that memory moves in all, with what waits in the cache to be written."""
        return sum(op.memory for op in self.operations) + self.cache.flush()

    @property
    def moved(self) -> int:
        """Bytes that operations read and write, were there no cache."""
        return sum(op.read + op.written for op in self.operations)

    @property
    def launches(self) -> int:
        return len(self.operations)

    def kernel(self, name: str, inputs, outputs, flops: int = 0, kind: str = "bf16") -> None:
        """Note an operation that reads ``inputs`` and writes ``outputs``, each once."""
        self._free()
        read = written = memory = 0
        for tensor in inputs:
            nbytes = _distinct_bytes(tensor)
            read += nbytes
            memory += self.cache.read(self._piece(tensor), nbytes)
        for tensor in outputs:
            nbytes = _distinct_bytes(tensor)
            written += nbytes
            memory += self.cache.write(self._piece(tensor), nbytes)
        self.operations.append(Operation(name, read, written, memory, flops, kind))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_gpu = any(tensor.is_cuda for tensor in inputs)
        if on_gpu and self.may_wait and name == "_local_scalar_dense":
            return inputs[0].dtype == torch.bool or 1
        if on_gpu and name in ("nonzero", "_local_scalar_dense", "is_nonzero", "masked_select"):
            raise WaitsForTheGpuError(f"{name} makes the CPU wait for the GPU.")
        if name == "index" and any(t.dtype == torch.bool for t in inputs[1:]):
            raise WaitsForTheGpuError("An index of booleans makes the CPU wait for the GPU.")
        result = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        crosses = any(not tensor.is_cuda and tensor.device.type != "meta" for tensor in outputs)
        if on_gpu and (crosses or (name == "copy_" and not args[0].is_cuda)):
            raise WaitsForTheGpuError(f"{name} brings a tensor from the GPU to the CPU.")
        if name == "copy_" and args[0].is_cuda and _sends(args[1]) and not self.may_wait:
            raise WaitsForTheGpuError("copy_ sends a tensor to the GPU at every call.")
        for tensor in outputs:
            self._note(tensor)
        if outputs and outputs[0].is_cuda and not func.is_view and name not in _MAKES_NOTHING:
            self._count(func, name, args, kwargs, inputs, outputs)
        return result

    def _count(self, func, name: str, args, kwargs, inputs: list, outputs: list) -> None:
        changed = {
            id(value)
            for argument, value in [
                *zip(func._schema.arguments, args, strict=False),
                *((a, kwargs.get(a.name)) for a in func._schema.arguments),
            ]
            if argument.alias_info is not None and argument.alias_info.is_write
        }
        only_written = name in _OVERWRITES or func._schema.overload_name == "out"
        read = [t for t in inputs if t.is_cuda and not (only_written and id(t) in changed)]
        if name in _GATHERS and read and read[0].numel() > outputs[0].numel():
            read = [outputs[0], *read[1:]]
        flops, kind = _flops(name, inputs, outputs)
        self.kernel(name, read, outputs, flops, kind)

    def _note(self, tensor: torch.Tensor) -> None:
        if not tensor.is_cuda:
            return
        storage = tensor.untyped_storage()
        self._free()
        if storage._cdata in self.storages:
            return
        self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.held += storage.nbytes()
        self.peak = max(self.peak, self.held)

    def _free(self) -> None:
        for place, (reference, nbytes) in list(self.storages.items()):
            if reference.expired():
                del self.storages[place]
                self.held -= nbytes
                self.cache.forget(place)

    def _piece(self, tensor: torch.Tensor) -> tuple:
        place = tensor.untyped_storage()._cdata
        return place, tensor.storage_offset() * tensor.element_size(), _distinct_bytes(tensor)


def _sends(source: torch.Tensor) -> bool:
    """A tensor without dimensions goes to the GPU as a constant."""
    return not source.is_cuda and source.dim() > 0


def _distinct_bytes(tensor: torch.Tensor) -> int:
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(size for size, stride in sizes if stride) * tensor.element_size()


_MATMULS = {"linear", "mm", "addmm", "addmm_", "bmm", "baddbmm", "_int_mm", "_scaled_mm"}
_KINDS = {torch.int8: "int8", torch.float8_e4m3fn: "fp8", torch.float8_e5m2: "fp8"}


def _flops(name: str, inputs: list, outputs: list) -> tuple[int, str]:
    if name in _MATMULS:
        if name == "linear":
            inputs = inputs[:2]
        matrices = [t for t in inputs if t.dim() >= 2]
        left = matrices[-2] if name not in ("_scaled_mm",) else matrices[0]
        kind = _KINDS.get(left.dtype, "fp32" if left.dtype == torch.float32 else "bf16")
        return 2 * outputs[0].numel() * left.shape[-1], kind
    if "attention" in name:
        query, key = inputs[0], inputs[1]
        return 4 * query.numel() * key.shape[-2], "attention"
    return 0, "bf16"
