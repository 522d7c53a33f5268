"""A model file to a quantized one: each layer is read, quantized, written and forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..applying.component import calibrated_rounding, kernel_of
from ..applying.quantize_plan import layer_quantizer
from ..applying.ray_quantizer import quantizing_on
from ..calibration import Calibration
from ..errors import StorageError, UnknownNameError
from ..fit import Fit, Recipe, with_fit
from ..formats import QuantizedWeight
from ..hardware import Hardware, default_device
from ..methods import RANK
from ..planning.calibrated_layers import with_calibration
from ..planning.decisions import LayerPlan, Plan
from ..planning.plan import plan_component
from ..report import MIB, Report
from ..rounding import AUTO as ROUND_AUTO
from ..rounding import CalibratedRounding, require_rounding
from ..storage import refuse_to_replace
from .readers import AUTO, FILE_FORMATS, STOCK, is_private, require_reader
from .source import ModelFile, open_model
from .written import file_metadata, file_parts, write_parts

GENERIC = "generic"

# A file is for whatever machine will run it, so the one that writes it decides nothing.
ANY_HARDWARE = Hardware("any", "any device", fp8_matmul=True)

# Bytes of a file beside its tensors, at most: an entry of the header without its name, what a
# quantized layer adds (marker, entries of its parts), and the metadata.
_ENTRY, _LAYER, _METADATA = 96, 1024, 4096


@dataclass(frozen=True)
class Conversion:
    """What ``convert`` made. target: the file. size: its bytes. private: whether it is in this
    pack's own format. seconds: for everything, reading and verifying included."""

    target: Path
    size: int
    private: bool
    seconds: float
    report: Report


def plan_file(
    source: ModelFile,
    method: str,
    granularity: str = "per-row",
    *,
    preset: str | None = AUTO,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] | None = None,
    fit: Fit | Recipe | None = None,
    rank: int = RANK,
) -> Plan:
    """The plan that Quantize Model makes of the same model.

    preset: "auto" for the one of the architecture that the file's names tell, else as in
    ``plan_component``, whose errors are raised. fit: what the method "fit" is asked for; its size
    is that of the whole file. FitError as in ``with_fit``.
    """
    if preset == AUTO:
        preset = source.model.preset or GENERIC
    plan = plan_component(
        source.layers(),
        method,
        source.model.component,
        granularity,
        preset=preset,
        include=include,
        exclude=exclude,
        hardware=ANY_HARDWARE,
        rank=rank,
        tables=True,
    )
    names = sum(map(len, source.files.specs))
    header = names + _ENTRY * len(source.files.specs) + _LAYER * len(plan.quantized) + _METADATA
    return with_fit(plan, fit, source.files.nbytes + header).plan


def convert(
    source: str | Path,
    target: str | Path,
    method: str,
    granularity: str = "per-row",
    *,
    preset: str | None = AUTO,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] | None = None,
    fit: Fit | Recipe | None = None,
    file_format: str = AUTO,
    overwrite: bool = False,
    device: torch.device | str | None = None,
    ray: str | None = None,
    calibration: Calibration | None = None,
    rounding: str = ROUND_AUTO,
    rank: int = RANK,
    on_bytes: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Quantize the model in the file ``source`` and write it to ``target``.

    In a whole checkpoint the diffusion model is quantized; all else is copied byte for byte, and
    so are the layers that are kept, the names, and the metadata. Arguments as in ``plan_file`` and
    Save Quantized Model. device: where the arithmetic runs (default: the accelerator, else the
    CPU). ray: spread the layers over the Ray cluster at this address, as in ``ray_cluster``; the
    file stays the same. calibration, rounding: as in ``quantize_component``. on_bytes: (bytes
    done, bytes in all), of reading, writing and verifying.

    Peak memory: the largest tensor of the file, and what it is quantized to. StorageError and the
    errors of ``plan_component``; after any error ``target`` is as it was before.
    """
    started = time.perf_counter()
    target = Path(target)
    if file_format not in FILE_FORMATS:
        raise UnknownNameError("file format", file_format, FILE_FORMATS)
    if file_format == STOCK and isinstance(fit, Fit):
        fit = replace(fit, stock_only=True)
    with open_model(source) as model:
        _require_another_file(model, target)
        plan = plan_file(
            model,
            method,
            granularity,
            preset=preset,
            include=include,
            exclude=exclude,
            fit=fit,
            rank=rank,
        )
        plan = with_calibration(plan, calibration)
        if not plan.quantized:
            raise _nothing_to_do(model, plan, fit)
        require_reader(model.model, model.files.specs, plan, file_format)
        private = is_private(plan, file_format)
        device = torch.device(device or default_device())
        refuse_to_replace(target, overwrite)
        rounds = _rounding(model, plan, calibration, rounding)
        metadata = file_metadata(model, plan, private)
        with _quantizer(model, plan, device, ray, rounds) as quantize:
            parts = list(file_parts(model, plan, private, quantize, rounds))
            size = write_parts(model, parts, metadata, private, target, overwrite, on_bytes)
        before = model.files.nbytes
    after = before - sum(layer.bytes_before - layer.bytes_after for layer in plan.quantized)
    seconds = time.perf_counter() - started
    kernel = kernel_of(plan, device)
    outcomes = {} if rounds is None else rounds.outcomes
    report = Report(plan, kernel, seconds, before, after, rounding=outcomes)
    return Conversion(target, size, private, seconds, report)


def _nothing_to_do(model: ModelFile, plan: Plan, fit: Fit | Recipe | None) -> StorageError:
    """Why no layer would be quantized, and the remedy."""
    name, size = model.path.name, model.files.nbytes
    if isinstance(fit, Fit) and size <= fit.size:
        return StorageError(
            f"{name} has {size / MIB:.1f} MiB, which fits the size asked for "
            f"({fit.size / MIB:.1f} MiB) without quantizing. Ask for a smaller size."
        )
    return StorageError(
        f"Nothing of {name} would be quantized: {plan.method}. "
        "Choose a method other than none, and a file that is not quantized already."
    )


def _require_another_file(model: ModelFile, target: Path) -> None:
    if target.suffix not in (".safetensors", ".sft"):
        raise StorageError(f"{target.name} does not end in .safetensors. Name it so.")
    for file in model.files.files:
        if target.exists() and target.samefile(file.path):
            raise StorageError(
                f"{target} is the file that is read. Choose another name; nothing was written."
            )


def _rounding(
    model: ModelFile, plan: Plan, calibration: Calibration | None, rounding: str
) -> CalibratedRounding | None:
    if calibration is None:
        require_rounding(rounding, None)
        return None
    return calibrated_rounding(model.layers_and_vectors(), plan, calibration, rounding)


@contextmanager
def _quantizer(
    model: ModelFile,
    plan: Plan,
    device: torch.device,
    ray: str | None,
    rounds: CalibratedRounding | None,
) -> Iterator[Callable[[LayerPlan], QuantizedWeight]]:
    """What quantizes a layer: this process, or a cluster."""

    def read(layer: str) -> torch.Tensor:
        return model.files.read(model.weight_name(layer))

    layers = {model.weight_name(layer.name): layer for layer in plan.quantized}
    order = [layers[name] for name in model.files.specs if name in layers]
    with quantizing_on(ray, order, read, rounds) as elsewhere:
        yield elsewhere or layer_quantizer(read, device, rounds)
