"""A weight that is only a shape, for ComfyUI's detection and loading to go by.

Tested by tests/nodes/bridge/loading/test_load_foreign.py.
"""

from __future__ import annotations

import torch

aten = torch.ops.aten

# In inference mode ``to`` arrives whole, in one of its forms; else as a copy or not at all.
_CASTS = (aten._to_copy, aten.to)


class Placeholder(torch.Tensor):
    """A tensor without storage: shape and dtype of a weight that is attached later. Copying it into
    a parameter writes nothing, so that the parameter's memory is never touched."""

    @staticmethod
    def __new__(cls, shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu"):
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        this, *_ = args
        if func is aten.copy_.default:
            return this
        if func in (aten.detach.default, aten.clone.default, aten.alias.default):
            return Placeholder(this.shape, this.dtype, this.device)
        if func.overloadpacket in _CASTS:
            given = (*args[1:], *(kwargs or {}).values())
            dtypes = [value for value in given if isinstance(value, torch.dtype)]
            devices = [value for value in given if isinstance(value, torch.device)]
            return Placeholder(
                this.shape, (dtypes or [this.dtype])[0], (devices or [this.device])[0]
            )
        raise NotImplementedError(f"A weight was read before it was attached ({func}).")
