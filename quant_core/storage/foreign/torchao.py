"""torchao's safetensors files: tensor subclasses taken apart, described in the metadata.

A weight ``L.weight`` is the tensors ``L._weight_qdata``, ``L._weight_scale`` and so on; which
subclass they make stands as JSON in the metadata, under the weight's name.
"""

from __future__ import annotations

from typing import Any

from ..checks import fault, read_json
from ..reader import TensorFiles
from .layer import ForeignLayer
from .torchao_tensors import BUILDERS, Flattened

# The key of its metadata that lists all tensors.
TORCHAO_NAMES = "tensor_names"

_PLAIN = "Tensor"
_WEIGHT = ".weight"


def recognise(files: TensorFiles) -> dict[str, ForeignLayer]:
    """The quantized layers in ``files`` by name; empty where the files are not of this library."""
    if TORCHAO_NAMES not in files.metadata:
        return {}
    found = {}
    for key, text in files.metadata.items():
        if not key.endswith(_WEIGHT):
            continue
        described = read_json(files, key, text)
        kind = str(described.get("_type"))
        if kind == _PLAIN:
            continue
        if kind not in BUILDERS:
            known = ", ".join(BUILDERS)
            raise fault(files, f"stores {key} as torchao's {kind}, which is not read ({known} are)")
        name = key.removesuffix(_WEIGHT)
        found[name] = BUILDERS[kind](_flattened(files, name, described))
    return found


def _flattened(files: TensorFiles, name: str, described: dict[str, Any]) -> Flattened:
    parts, attributes = described.get("_tensor_data_names"), described.get("_data")
    if not isinstance(parts, list) or not isinstance(attributes, dict):
        raise fault(files, f"describes {name}.weight without its tensors")
    names = {str(part): f"{name}._weight_{part}" for part in parts}
    for part, tensor in names.items():
        if tensor not in files.specs:
            raise fault(files, f"lacks {tensor}, the {part} of {name}.weight")
    if not {"qdata", "scale"} <= names.keys():
        raise fault(files, f"describes {name}.weight without qdata and scale")
    return Flattened(files, name, names, attributes)
