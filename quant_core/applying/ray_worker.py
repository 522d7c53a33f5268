"""The work of one worker of a cluster: quantizes a layer, from plain values to plain values.

Tested by tests/quant_core/applying/test_ray_quantizer.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..calibration import Calibration
from ..errors import NonFiniteWeightError
from ..formats import format_from_dict
from ..planning.decisions import LayerPlan
from ..rounding import AUTO, CalibratedRounding
from .quantize_plan import layer_quantizer

Sent = tuple[np.ndarray, str, tuple[int, ...]]


def sent(tensor: torch.Tensor) -> Sent:
    """A tensor as it is sent: bytes, dtype and shape. Ray sends arrays of bytes without a copy, and
    knows nothing of float8."""
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return data, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)


def received(told: Sent) -> torch.Tensor:
    """The tensor that was ``sent``, in memory of its own."""
    data, dtype, shape = told
    return torch.from_numpy(data.copy()).view(getattr(torch, dtype)).view(shape)


def quantize_order(order: Mapping[str, Any], weight: Sent, device: str) -> dict[str, Any]:
    """The layer of ``order``, quantized on ``device``: its parts and its rounding, to be sent."""
    layer = LayerPlan(**{**order["layer"], "format": format_from_dict(order["format"])})
    rounding = None
    if order["rounding"] is not None:
        told = order["rounding"]
        rows = {} if told["rows"] is None else {layer.name: received(told["rows"])}
        biased = (layer.name,) if told["biased"] else ()
        way = told["way"] if rows else AUTO
        rounding = CalibratedRounding(Calibration({}, rows=rows), way, biased)
    try:
        with torch.inference_mode(False), torch.no_grad():
            stored = layer_quantizer(lambda name: received(weight), device, rounding)(layer)
    except NonFiniteWeightError:
        return {"not_finite": True}
    shift = None if rounding is None else rounding.bias_shifts.get(layer.name)
    return {
        "not_finite": False,
        "parts": {name: sent(part) for name, part in stored.tensors.items()},
        "outcome": None if rounding is None else rounding.outcomes[layer.name].to_dict(),
        "shift": None if shift is None else sent(shift),
    }
