"""A tensor that is computed when it is read: a quantized weight's entry in a state dict.

A caller of ``state_dict()["x.weight"]`` may calculate with the entry, but most need only its name,
its shape or its bytes, and a model of 12 billion weights cannot be dequantized for those.

Tested by tests/nodes/test_weight_readers.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils._pytree import tree_map

aten = torch.ops.aten

_SAME = (aten.detach.default, aten.alias.default)


class Deferred(torch.Tensor):
    """A tensor whose numbers ``read()`` makes, anew for every operation. It has the shape, dtype
    and device that it is given; ``nbytes`` are those of what is really held. Nothing can be written
    into it: TypeError. quantized: the tensor behind it, where that alone gives the numbers."""

    quantized: torch.Tensor | None = None

    @staticmethod
    def __new__(
        cls,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        read: Callable[[], torch.Tensor],
        held: int,
    ):
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)

    def __init__(self, shape, dtype, device, read, held):
        self._read, self._held = read, held

    @property
    def nbytes(self) -> int:
        """ComfyUI counts a model's size by its state dict."""
        return self._held

    def dense(self) -> torch.Tensor:
        """The numbers, as an ordinary tensor."""
        return self._read().to(self.dtype)

    def data_ptr(self) -> int:
        """The address of the numbers, for writing them to a file: they live as long as this object
        does."""
        if "_kept" not in self.__dict__:
            self._kept = self.dense().contiguous()
        return self._kept.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        """None that it shares with another tensor: safetensors asks before it writes anything."""
        return torch.UntypedStorage(0)

    def __deepcopy__(self, memo: dict) -> torch.Tensor:
        return self.dense().clone()

    def __reduce_ex__(self, protocol: int):
        return self.dense().__reduce_ex__(protocol)

    def __repr__(self, **_) -> str:
        return f"Deferred(shape={list(self.shape)}, dtype={self.dtype}, device={self.device})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _SAME:
            this = args[0]
            same = cls(this.shape, this.dtype, this.device, this._read, this._held)
            same.quantized = this.quantized
            return same
        for argument, value in zip(func._schema.arguments, args, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and isinstance(value, cls):
                raise TypeError(
                    "A quantized weight can't be changed in its state dict: change the layer's "
                    "weight, with a LoRA or a merge, or change the model before it is quantized."
                )
        return func(*tree_map(_dense, args), **tree_map(_dense, kwargs))


def _dense(value: object) -> object:
    return value.dense() if isinstance(value, Deferred) else value
