"""Layerwise casting: weights wait in FP8 and are computed in another dtype, one layer at a time.

As in diffusers, hooks around each layer's forward do it. Two things are added: a scale a tensor,
because a plain cast crushes small weights (relative L2 0.28 for Gaussian weights of sigma 0.002,
0.027 with a scale), and an undo. The stored tensor is put aside while the layer runs, never cast
back from the copy, so nothing is rounded twice. Biases keep their dtype in storage.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ..detect import module_bytes
from ..errors import CastingError, UnknownNameError
from ..layers import require_module, submodule
from ..planning.layerwise_plan import (
    COMPUTE_DTYPES,
    DEFAULT_SKIP_PATTERNS,
    plan_layerwise,
    plan_whole,
)
from ..report import Report
from .component import kernel_of
from .quantize_plan import quantize_plan

log = logging.getLogger(__name__)


def apply_layerwise_casting(
    module: nn.Module,
    storage_dtype: torch.dtype = torch.float8_e4m3fn,
    compute_dtype: torch.dtype | None = None,
    scaled: bool = True,
    skip_patterns: str | Iterable[str] | None = DEFAULT_SKIP_PATTERNS,
    skip_classes: str | Iterable[type | str] | None = None,
    non_blocking: bool = False,
) -> Report:
    """Store the weights of ``module``'s layers in ``storage_dtype``, in place.

    Which layers: see ``plan_layerwise``. Skip patterns and classes both None cast the module as
    one: while its forward runs every parameter, norms too, has a copy in ``compute_dtype``.

    compute_dtype: bfloat16, float16 or float32, by default the module's own. Inputs are not cast:
    the rest of the module should be in this dtype. A scale (1 where not ``scaled``) is a buffer
    beside its parameter, ``weight_scale``, so a state dict has it. Code that reads ``layer.weight``
    instead of calling the layer sees FP8 codes.

    CastingError where casting is applied already; UnknownNameError; others as ``plan_layerwise``.
    """
    require_module(module, "module")
    if _castings(module):
        raise CastingError(
            "Layerwise casting is applied already. Call remove_layerwise_casting(module) first."
        )
    compute_dtype = compute_dtype or _own_dtype(module)
    if _name(compute_dtype) not in COMPUTE_DTYPES:
        raise UnknownNameError("compute dtype", _name(compute_dtype), COMPUTE_DTYPES)
    whole = skip_patterns is None and skip_classes is None
    if whole:
        plan = plan_whole(module, _name(storage_dtype), scaled)
    else:
        plan = plan_layerwise(module, _name(storage_dtype), scaled, skip_patterns, skip_classes)

    def parameter(name: str) -> nn.Parameter:
        owner, _, part = name.rpartition(".") if whole else (name, "", "weight")
        return submodule(module, owner)._parameters[part]

    before, started = module_bytes(module), time.perf_counter()
    # Parameters made in inference mode could never again be moved or saved outside it.
    with torch.inference_mode(False), torch.no_grad():
        weights = quantize_plan(plan, lambda name: parameter(name).detach())
        stored = {
            parameter(name): Stored(nn.Parameter(weight.qdata, requires_grad=False), weight.scale)
            for name, weight in weights.items()
        }
        for hooked in [module] if whole else [submodule(module, name) for name in weights]:
            hooked._layerwise_casting = Casting(hooked, stored, compute_dtype, non_blocking)
    report = Report(
        plan=plan,
        kernel=kernel_of(plan, next(module.parameters()).device),
        seconds=time.perf_counter() - started,
        model_bytes_before=before,
        model_bytes_after=module_bytes(module),
    )
    log.info("%s", report.summary())
    return report


def remove_layerwise_casting(module: nn.Module) -> None:
    """Undoes ``apply_layerwise_casting`` in place: plain parameters of their former dtypes, no
    hooks.

    Their values are those that the layers computed with; a value that FP8 can hold is the
    original's, bit by bit. CastingError where nothing is cast.
    """
    require_module(module, "module")
    castings = _castings(module)
    if not castings:
        raise CastingError(
            "There is no layerwise casting to remove. "
            "Give the module that apply_layerwise_casting was given."
        )
    restored: dict[nn.Parameter, nn.Parameter] = {}
    with torch.inference_mode(False), torch.no_grad():
        for hooked, casting in castings.items():
            casting.undo(restored)
            del hooked._layerwise_casting


@dataclass(frozen=True)
class Stored:
    """A parameter as it is kept between calls: FP8 codes, and the float32 scalar they are
    multiplied with."""

    codes: nn.Parameter
    scale: torch.Tensor


@dataclass(frozen=True)
class Slot:
    """The place of a floating point parameter in a module, and what stood there before casting."""

    owner: nn.Module
    name: str
    dtype: torch.dtype
    requires_grad: bool
    cast: bool

    @property
    def scale_name(self) -> str:
        """The name of the buffer that holds this parameter's scale."""
        return f"{self.name}_scale"

    def computed(self, dtype: torch.dtype, non_blocking: bool = False) -> torch.Tensor:
        """The parameter in ``dtype``, unscaled. One that is not cast is returned as it is if it has
        that dtype."""
        stored = self.owner._parameters[self.name]
        if not self.cast:
            return stored.to(dtype, non_blocking=non_blocking)
        copy = stored.to(dtype, non_blocking=non_blocking, copy=True)
        return copy.mul_(self.owner._buffers[self.scale_name])


class Casting:
    """The hooks on one module, which give its parameters compute copies while its forward runs."""

    def __init__(
        self,
        module: nn.Module,
        stored: Mapping[nn.Parameter, Stored],
        compute_dtype: torch.dtype,
        non_blocking: bool,
    ):
        self.module = module
        self.compute_dtype = compute_dtype
        self.non_blocking = non_blocking
        self.waiting: list[nn.Parameter] = []
        self.slots = [
            _store(owner, name, parameter, stored.get(parameter))
            for owner in module.modules()
            for name, parameter in list(owner._parameters.items())
            if parameter is not None and parameter.is_floating_point()
        ]
        self.handles = (
            module.register_forward_pre_hook(self._before),
            module.register_forward_hook(self._after, always_call=True),
        )
        module._apply = self._apply

    def _apply(self, function: Callable, recurse: bool = True) -> nn.Module:
        """In place of the module's own, which ``.to``, ``.half`` and ``.cuda`` call: codes and
        their scales move, and keep their dtypes. Another dtype would undo the storage."""
        self._restore()
        cast = [slot for slot in self.slots if slot.cast]
        kept = {id(slot.owner._parameters[slot.name]) for slot in cast}
        kept |= {id(slot.owner._buffers[slot.scale_name]) for slot in cast}

        def keeping(tensor: torch.Tensor) -> torch.Tensor:
            made = function(tensor)
            same = id(tensor) not in kept or made.dtype == tensor.dtype
            return made if same else tensor.to(made.device)

        return type(self.module)._apply(self.module, keeping, recurse)

    def _before(self, module: nn.Module, inputs: tuple) -> None:
        self._restore()  # KeyboardInterrupt ends a forward without its hooks
        for slot in self.slots:
            copy = slot.computed(self.compute_dtype, self.non_blocking)
            self.waiting.append(slot.owner._parameters[slot.name])
            slot.owner._parameters[slot.name] = copy

    def _after(self, module: nn.Module, inputs: tuple, output: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for slot, parameter in zip(self.slots, self.waiting, strict=False):
            slot.owner._parameters[slot.name] = parameter
        self.waiting.clear()

    def undo(self, restored: dict[nn.Parameter, nn.Parameter]) -> None:
        """Removes the hooks and puts plain parameters back. ``restored`` keeps tied parameters tied
        across modules."""
        self._restore()
        for handle in self.handles:
            handle.remove()
        del self.module._apply
        for slot in filter(lambda slot: slot.cast, self.slots):
            codes = slot.owner._parameters[slot.name]
            if codes not in restored:
                values = slot.computed(torch.float32).to(slot.dtype)
                restored[codes] = nn.Parameter(values, requires_grad=slot.requires_grad)
            slot.owner._parameters[slot.name] = restored[codes]
            del slot.owner._buffers[slot.scale_name]


def _store(owner: nn.Module, name: str, old: nn.Parameter, stored: Stored | None) -> Slot:
    slot = Slot(owner, name, old.dtype, old.requires_grad, cast=stored is not None)
    if stored is not None:
        owner._parameters[name] = stored.codes
        owner.register_buffer(slot.scale_name, stored.scale)
    return slot


def _castings(module: nn.Module) -> dict[nn.Module, Casting]:
    attached = ((m, m.__dict__.get("_layerwise_casting")) for m in module.modules())
    return {m: casting for m, casting in attached if casting is not None}


def _own_dtype(module: nn.Module) -> torch.dtype:
    dtypes = (parameter.dtype for parameter in module.parameters())
    return next((dtype for dtype in dtypes if _name(dtype) in COMPUTE_DTYPES), torch.float32)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
