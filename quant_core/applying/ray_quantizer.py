"""The layers of a plan quantized on the GPUs and machines of a Ray cluster.

Layers are independent. A few more than there are workers are under way at a time, in the order of
the plan, so that neither this process nor the cluster's store ever holds many. What a worker was
doing when it was lost is done again by another. Workers need PyTorch, and are sent this package.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import ClusterError, NonFiniteWeightError
from ..formats import QuantizedWeight
from ..planning.decisions import LayerPlan
from ..rounding import CalibratedRounding, LayerRounding
from .ray_worker import Sent, received, sent

LOCAL = "local"
# How often a layer is done again after the worker that did it was lost. More losses than that are
# the layer's doing, such as one that is too large for any worker's memory.
_RETRIES = 8
_SECONDS_TO_ANSWER = 5
_PACKAGE = Path(__file__).resolve().parent.parent


@contextmanager
def ray_cluster(address: str = LOCAL, workers: int | None = None) -> Iterator[Any]:
    """The module ``ray``, connected to the cluster at ``address`` and disconnected in the end; as
    it is where this process is connected already.

    address: "local" for one of this machine's processors, ended with it; "auto" for the one that
    runs here; else as in ``ray.init``. workers: of a local one (default: one a processor).
    ClusterError where Ray is missing, or no cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise ClusterError("Ray is not installed. Run: pip install ray") from None
    if ray.is_initialized():  # whoever connected this process ends that
        yield ray
        return
    _require_answer(address)
    options = {"address": address} if address != LOCAL else {"num_cpus": workers}
    if address == LOCAL:
        options |= {"include_dashboard": False, "address": "local"}
    try:
        ray.init(
            **options,
            runtime_env={"py_modules": [str(_PACKAGE)]},
            log_to_driver=False,
            logging_level="error",
            configure_logging=False,
        )
    except (ConnectionError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ClusterError(
            f"No Ray cluster at {address} ({first}). Start one with: ray start --head"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def quantizing_on(
    address: str | None,
    layers: Iterable[LayerPlan],
    read_weight: Callable[[str], torch.Tensor],
    rounding: CalibratedRounding | None = None,
) -> Iterator[RayQuantizer | None]:
    """A ``RayQuantizer`` on the cluster at ``address``, as in ``ray_cluster``; None without one."""
    if address is None:
        yield None
        return
    with ray_cluster(address) as ray:
        yield RayQuantizer(ray, layers, read_weight, rounding)


def _require_answer(address: str) -> None:
    """ClusterError where nothing listens at host:port, which Ray finds out after minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ClusterError(
            f"No Ray cluster answers at {address} ({reason}). Start one with: ray start --head"
        ) from None


class RayQuantizer:
    """Quantizes the layers of a plan on a cluster, asked for one after another in its order.

    ray: of ``ray_cluster``. layers: all that will be asked for, in that order. read_weight: the
    float weight by layer name, read here and sent. rounding: a ``CalibratedRounding``, which gets
    the outcomes and the bias shifts, or None to round to nearest. Results are bit-equal to those of
    one process on the same kind of device. NonFiniteWeightError names the layer, and ClusterError
    the one that no worker can do.
    """

    def __init__(
        self,
        ray: Any,
        layers: Iterable[LayerPlan],
        read_weight: Callable[[str], torch.Tensor],
        rounding: CalibratedRounding | None = None,
    ):
        self._ray = ray
        self._waiting = deque(layer for layer in layers if layer.tied_to is None)
        self._read = read_weight
        self._rounding = rounding
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        options = {"max_retries": _RETRIES, "num_cpus": 1, "num_gpus": 1 if gpus else 0}
        self._task = ray.remote(**options)(_task(torch.get_num_threads(), bool(gpus)))
        self._window = 2 + (gpus or int(resources.get("CPU", 1)))
        self._running: dict[str, Any] = {}

    def __call__(self, layer: LayerPlan) -> QuantizedWeight:
        """The weight of ``layer``, which is the next of ``layers``."""
        while self._waiting and len(self._running) < self._window:
            self._submit(self._waiting.popleft())
        done = self._result_of(layer.name)
        if done["not_finite"]:
            raise NonFiniteWeightError(
                f"{layer.name}.weight holds NaN or infinity. "
                f"Exclude {layer.name!r}, or repair the checkpoint."
            )
        if self._rounding is not None:
            self._rounding.outcomes[layer.name] = LayerRounding(**done["outcome"])
            if done["shift"] is not None:
                self._rounding.bias_shifts[layer.name] = received(done["shift"])
        parts = {name: received(part) for name, part in done["parts"].items()}
        dtype = getattr(torch, layer.dtype)
        return QuantizedWeight.of_parts(layer.format, parts, layer.shape, dtype)

    def _result_of(self, layer: str) -> dict[str, Any]:
        failed = self._ray.exceptions
        try:
            return self._ray.get(self._running.pop(layer))
        except failed.RayTaskError as error:
            cause = f"{type(error.cause).__name__}: {error.cause}".splitlines()[0]
            raise ClusterError(
                f"A worker cannot quantize {layer} ({cause}). Workers need PyTorch, numpy and "
                "memory for the layer: check them, or leave Ray out."
            ) from error
        except failed.RayError as error:
            raise ClusterError(
                f"The cluster lost {layer} {_RETRIES + 1} times ({type(error).__name__}). "
                "Check the memory and the logs of its workers, or leave Ray out."
            ) from error

    def _submit(self, layer: LayerPlan) -> None:
        weight = sent(self._read(layer.name))
        rounding = self._rounding and self._rounding.order_of(layer.name)
        if rounding and rounding["rows"] is not None:
            rounding["rows"] = sent(rounding["rows"])
        order = {
            "layer": {**vars(layer), "format": None},
            "format": layer.format.to_dict(),
            "rounding": rounding,
        }
        self._running[layer.name] = self._task.remote(order, weight)


def _task(threads: int, on_gpu: bool) -> Callable[[Mapping[str, Any], Sent], dict]:
    """What a worker runs. It is sent by value, and finds the package by the name that Ray gives it,
    whatever it is called here."""

    def quantize(order, weight):
        import torch

        from quant_core.applying.ray_worker import quantize_order

        torch.set_num_threads(threads)
        return quantize_order(order, weight, "cuda" if on_gpu else "cpu")

    return quantize
