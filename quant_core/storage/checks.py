"""What a header and a marker of a safetensors file must hold, refused with the file's name."""

from __future__ import annotations

import json
from typing import Any

import torch

from ..errors import StorageError
from .header import TensorSpec
from .reader import TensorFiles

_MAX_JSON_BYTES = 65_536


def fault(files: TensorFiles, text: str) -> StorageError:
    """A StorageError that names the file, says what is wrong with it, and what to do."""
    return StorageError(f"{files.path.name} {text}. Download or save it again; nothing was loaded.")


def require_spec(
    files: TensorFiles, name: str, dtype: torch.dtype, shape: tuple[int, ...] | None = None
) -> TensorSpec:
    """The header's entry of tensor ``name``. StorageError where it is missing, or of another dtype
    or shape."""
    spec = files.specs.get(name)
    if spec is None:
        raise fault(files, f"lacks {name}")
    if spec.dtype != dtype or (shape is not None and spec.shape != shape):
        wanted = f"{dtype} {list(shape)}" if shape is not None else str(dtype)
        raise fault(files, f"has {name} as {spec.dtype} {list(spec.shape)}, not {wanted}")
    return spec


def raw_bytes(tensor: torch.Tensor) -> bytes:
    """The bytes of a marker tensor, whatever dtype it claims."""
    return bytes(tensor.reshape(-1).view(torch.uint8).numpy())


def read_json(files: TensorFiles, name: str, text: bytes | str | None = None) -> dict[str, Any]:
    """The JSON object in the tensor ``name``, or in ``text``. StorageError where it is not one."""
    if text is None and files.specs[name].nbytes > _MAX_JSON_BYTES:
        raise fault(files, f"has {files.specs[name].nbytes} bytes in {name}, which is a short text")
    try:
        values = json.loads(raw_bytes(files.read(name)) if text is None else text)
    except (ValueError, RecursionError) as error:
        raise fault(files, f"has {name} that is not JSON") from error
    if not isinstance(values, dict):
        raise fault(files, f"has {name} that is not a JSON object")
    return values
