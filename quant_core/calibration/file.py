"""A calibration kept as a file, with the fingerprint of the model that it was made of.

Tested by tests/nodes/test_calibrate_activations.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import StorageError, require_kind, require_path
from .activations import Calibration, LayerActivations
from .fingerprint import Fingerprint

_KEY, _VERSION = "graphquant_calibration", 1


def save_calibration(calibration: Calibration, path: str | Path) -> int:
    """Writes ``path``, a safetensors file, whole or not at all; returns its bytes.

    Rows that layers share are stored once. StorageError where it cannot be written.
    """
    remedy = "Give a Calibration, from observe or load_calibration."
    require_kind("calibration", calibration, Calibration, remedy)
    require_path("path", path)
    path = Path(path)
    tensors, places, rows = {}, {}, {}
    for name, each in calibration.rows.items():
        if id(each) not in places:
            places[id(each)] = f"rows.{len(places)}"
            tensors[places[id(each)]] = each.contiguous()
        rows[name] = places[id(each)]
    model = calibration.model
    described = {
        "version": _VERSION,
        **calibration.to_dict(),
        "rows": rows,
        "model": None if model is None else {"layers": model.layers, "values": model.values},
    }
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, {_KEY: json.dumps(described)})
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise StorageError(f"{path} can't be written: {error}") from error
    return path.stat().st_size


def load_calibration(path: str | Path) -> Calibration:
    """The calibration that ``save_calibration`` wrote to ``path``.

    StorageError for a file that is damaged or something else; OSError where there is none.
    """
    require_path("path", path)
    path = Path(path)
    try:
        with safe_open(path, "pt") as file:
            described = json.loads((file.metadata() or {})[_KEY])
            kept = {place: file.get_tensor(place) for place in set(described["rows"].values())}
        return _calibration(described, kept)
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(
            f"{path.name} is not a calibration, or is damaged. Delete it and calibrate again."
        ) from error


def _calibration(described: dict, kept: dict[str, torch.Tensor]) -> Calibration:
    if described["version"] != _VERSION:
        raise ValueError(described["version"])
    layers = {
        name: LayerActivations(float(seen["maximum"]), int(seen["rows"]), int(seen["calls"]))
        for name, seen in described["layers"].items()
    }
    rows = {name: kept[place] for name, place in described["rows"].items()}
    if any(each.dim() != 2 or each.dtype != torch.bfloat16 for each in kept.values()):
        raise ValueError("rows")
    model = described["model"]
    if model is not None:
        model = Fingerprint(str(model["layers"]), tuple(map(float, model["values"])))
    return Calibration(layers, float(described["percentile"]), rows, model)
