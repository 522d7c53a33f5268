"""Watch the activations of a MODEL's layers while ComfyUI's own sampler runs.

Tested by tests/nodes/test_calibrate_activations.py.
"""

from __future__ import annotations

import logging
from pathlib import Path

import comfy.model_management
import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

from ....quant_core.calibration import (
    Calibration,
    fingerprint_of,
    load_calibration,
    observe,
    planned_rows,
    row_bytes,
    save_calibration,
)
from ....quant_core.errors import CalibrationError
from ....quant_core.layers import supported_layers
from ....quant_core.machine.fastest import Search
from ..model.progress import tell
from .sampling import Sampling

log = logging.getLogger(__name__)

_GIB = 2**30


def calibrate(
    model: ModelPatcher,
    sampling: Sampling,
    seed: int,
    percentile: float,
    rows: int = 0,
    memory_gib: float = 0.0,
) -> Calibration:
    """What reaches every Linear layer of the diffusion model in one run.

    rows, memory_gib: how many rows of each layer's inputs to keep, and the memory that all may take
    together; the real size is announced before the run starts. The layers are watched by forward
    hooks, which are removed when this returns or raises. A compiled model runs uncompiled, because
    compiled code would keep the hooks.
    Errors as ``observe``'s.
    """
    plain = model.clone()
    plain.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY)
    root, limit = model.model.diffusion_model, int(memory_gib * _GIB)
    announcement = announced(_widths(model), rows, limit)
    log.info("%s", announcement)
    tell(announcement)
    with observe(
        root,
        rows,
        percentile=percentile,
        limit=limit,
        on_call=comfy.model_management.throw_exception_if_processing_interrupted,
    ) as seen:
        sampling.run(plain, seed, comfy.utils.ProgressBar(sampling.steps))
    return seen.calibration


def announced(widths: dict[str, int], rows: int, limit: int) -> str:
    """What a calibration will keep, in words."""
    planned = planned_rows(widths, rows, limit)
    least, needed = min(planned.values(), default=0), row_bytes(widths, planned)
    if not needed:
        return f"Calibration keeps no rows of the inputs of {len(widths)} layers."
    fewer = f", fewer than {rows} to stay within memory_gib" if least < rows else ""
    return (
        f"Calibration keeps {least} or more rows of each of {len(widths)} layers' inputs{fewer}: "
        f"at most {needed / _GIB:.2f} GiB of main memory, less where layers share an input."
    )


def kept_calibration(model: ModelPatcher, path: Path) -> Calibration | None:
    """The calibration of ``model`` that is in the file ``path``; None where there is no file.

    CalibrationError where it was made of another model, StorageError where it cannot be read.
    """
    if not path.is_file():
        return None
    calibration = load_calibration(path)
    made_of = calibration.model
    difference = made_of and made_of.difference(fingerprint_of(model.model.diffusion_model))
    if difference:
        raise CalibrationError(
            f"{path.name} holds the calibration of another model than this one: {difference}. "
            "Choose another file for this model, or delete that one."
        )
    return calibration


def keep_calibration(calibration: Calibration, path: Path) -> int:
    """Writes ``calibration`` to ``path`` and returns the bytes. StorageError."""
    return save_calibration(calibration, path)


def _widths(model: ModelPatcher) -> dict[str, int]:
    """K of every Linear layer of the diffusion model."""
    layers = supported_layers(model.model.diffusion_model, "transformer")
    return {name: module.weight.shape[1] for name, kind, module in layers if kind == "Linear"}


def fastest_search(
    model: ModelPatcher, calibration: Calibration | None, max_error: float
) -> Search:
    """The search of the method "fastest" for ``model``. It times the rows that the layers were
    calibrated with, the most where layers of one shape differ."""
    rows: dict[tuple[int, ...], int] = {}
    for name, _, module in supported_layers(model.model.diffusion_model, "transformer"):
        if calibration is not None and name in calibration.layers:
            shape = tuple(module.weight.shape)
            rows[shape] = max(calibration.layers[name].rows, rows.get(shape, 0))
    return Search(max_error, rows, model.load_device, model.model.get_dtype_inference())
