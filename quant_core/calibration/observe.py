"""Records the inputs of a model's layers while it runs, to calibrate it.

Tested by tests/quant_core/calibration/test_row_reservoir.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from ..errors import CalibrationError, require_callable
from ..layers import require_module, supported_layers
from .activations import ActivationStatistics, Calibration
from .fingerprint import fingerprint_of
from .row_reservoir import Reservoirs, planned_rows


class Observation:
    """What the hooks of ``observe`` have noted so far."""

    def __init__(self, model: nn.Module, rooms: dict[str, int], percentile: float):
        self._statistics = {name: ActivationStatistics(percentile) for name in rooms}
        self._rows = Reservoirs(rooms)
        self._percentile = percentile
        self._model = fingerprint_of(model)

    def add(self, name: str, x: torch.Tensor) -> None:
        """The input [..., K] of one call of the layer ``name``."""
        self._statistics[name].add(x)
        self._rows.add(name, x.reshape(-1, x.shape[-1]))

    @property
    def calibration(self) -> Calibration:
        """Of the calls until now. Layers that were not called are not in it."""
        called = {name: seen.result() for name, seen in self._statistics.items() if seen.calls}
        return Calibration(called, self._percentile, self._rows.rows(), self._model)


def _require_count(argument: str, value: int | None) -> None:
    if value is not None and (type(value) is bool or not isinstance(value, int) or value < 0):
        raise CalibrationError(f"{argument} is {value!r:.60}. Give a whole number of 0 or more.")


@contextmanager
def observe(
    model: nn.Module,
    rows: int | None = None,
    *,
    percentile: float = 100.0,
    limit: int | None = None,
    on_call: Callable[[], None] | None = None,
) -> Iterator[Observation]:
    """Note what reaches every Linear layer of ``model`` while the block runs.

        with observe(model, rows=512) as seen:
            model(x)
        quantize_component(model, "int4", calibration=seen.calibration)

    rows: of each layer's inputs to keep, in main memory, drawn evenly from all calls; 0 for none,
    None for 1024. Layers narrower than 4096 keep up to eight times as many (``planned_rows``).
    limit: bytes that they may take.
    percentile: see ``Calibration``. on_call is called at each call of a layer and may raise.

    The model may be quantized already. ModuleError unless it is an nn.Module; CalibrationError for
    activations that are not finite, and for arguments that are not numbers. The hooks are gone
    when the block ends, also after an error.
    """
    require_module(model)
    require_callable("on_call", on_call)
    for argument, value in (("rows", rows), ("limit", limit)):
        _require_count(argument, value)
    layers = {
        name: module
        for name, kind, module in supported_layers(model, "transformer")
        if kind == "Linear"
    }
    widths = {name: module.weight.shape[1] for name, module in layers.items()}
    observation = Observation(model, planned_rows(widths, rows, limit), percentile)

    def watch(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, named: dict, output: object) -> None:
            if on_call is not None:
                on_call()
            observation.add(name, inputs[0] if inputs else named["input"])

        return hook

    with ExitStack() as hooks:
        for name, module in layers.items():
            handle = module.register_forward_hook(watch(name), with_kwargs=True)
            hooks.callback(handle.remove)
        yield observation
