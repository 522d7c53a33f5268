"""What nodes put into a patcher's options, led from a model's modules into those of its copy.

TeaCache's and others' wrappers close over the diffusion model, whose forward they replace while it
runs; attention replacers are objects that hold a block. One that still led to the original's would
act on modules that do not run.

Tested by tests/nodes/bridge/copying/test_shapes.py.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Mapping
from functools import partial
from types import FunctionType, MappingProxyType, MethodType, ModuleType

import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from .closures import Closures
from .model_copy import redirect

# What holds no module of a model, and may be large.
_NEVER = (type, ModuleType, torch.Tensor, torch.device, torch.dtype)


class BoundToOriginalError(ValueError):
    """A node before Quantize Model refers to a module that cannot be moved to the copy."""


class Lead:
    """Leads values into a copied model. copies: the copy of each module, by the original's id.

    Functions, partials, bound methods and objects that hold a module are made anew over the same
    state; each object once, so that what was one stays one. All others come back themselves.

    quantized: the ModelPatcher of the copy. It takes the place of those of the original that it
    comes from, whose patches are all among ``patches``. BoundToOriginalError for one with others,
    or a module with a module of the original inside.
    """

    def __init__(
        self,
        copies: Mapping[int, nn.Module],
        quantized: ModelPatcher | None = None,
        patches: Mapping[str, list] = MappingProxyType({}),
    ):
        self._copies, self._quantized, self._patches = copies, quantized, patches
        self._made: dict[int, tuple[object, object]] = {}
        self._function = Closures(self._held)

    def __call__(self, value: object) -> object:
        """``value``, containers of any depth included."""
        if type(value) is dict:
            return {key: self(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(map(self, value))
        return self._single(value)

    def _single(self, value: object) -> object:
        if id(value) in self._copies:
            return self._copies[id(value)]
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, partial):
            return self._partial(value)
        if isinstance(value, MethodType):
            owner = self(value.__self__)
            return value if owner is value.__self__ else MethodType(value.__func__, owner)
        if isinstance(value, weakref.ref):
            found = self._copies.get(id(value()))
            return value if found is None else weakref.ref(found)
        if isinstance(value, ModelPatcher):
            return self._patcher(value, value)
        return self._object(value)

    def _held(self, value: object) -> object:
        """What a variable or an attribute holds: a container comes back itself where nothing in it
        is led, because it may be state that others see."""
        if type(value) not in (list, tuple, dict):
            return self._single(value)
        if id(value) not in self._made:
            led = redirect(value, self._copies)
            self._made[id(value)] = value, led if _differs(led, value) else value
        return self._made[id(value)][1]

    def _partial(self, value: partial) -> partial:
        function, arguments = self(value.func), [self(each) for each in value.args]
        named = {key: self(each) for key, each in value.keywords.items()}
        held = ((function, value.func), (arguments, [*value.args]), (named, value.keywords))
        if not any(_differs(led, each) for led, each in held):
            return value
        return partial(function, *arguments, **named)

    def _patcher(self, value: ModelPatcher, holder: object) -> ModelPatcher:
        if id(value.model) not in self._copies:
            return value
        if self._quantized is None or not _is_among(value.patches, self._patches):
            raise _bound(holder)
        return self._quantized

    def _object(self, value: object) -> object:
        if isinstance(value, nn.Module):
            if any(id(module) in self._copies for module in value.modules()):
                raise _bound(value)
            return value
        if isinstance(value, _NEVER):
            return value
        if id(value) not in self._made:
            self._made[id(value)] = value, value  # for what leads back to it
            self._made[id(value)] = value, self._with_led_attributes(value)
        return self._made[id(value)][1]

    def _with_led_attributes(self, value: object) -> object:
        held = dict(_attributes(value))
        led = {name: self._attribute(each, value) for name, each in held.items()}
        changed = {name: each for name, each in led.items() if _differs(each, held[name])}
        if not changed:
            return value
        made = copy.copy(value)
        for name, each in changed.items():
            object.__setattr__(made, name, each)
        return made

    def _attribute(self, value: object, holder: object) -> object:
        if isinstance(value, ModelPatcher):
            return self._patcher(value, holder)
        if isinstance(value, FunctionType):
            return self._function(value)
        return redirect(value, self._copies)


def _is_among(some: Mapping[str, list], patches: Mapping[str, list]) -> bool:
    """Whether ``patches`` begin with ``some``, name by name, as those of a later clone do."""
    return all(
        len(each) <= len(patches.get(key, ()))
        and all(one is other for one, other in zip(each, patches[key], strict=False))
        for key, each in some.items()
    )


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    """Name and value of each attribute of an object itself, those in slots too."""
    yield from getattr(value, "__dict__", {}).items()
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name) and name not in ("__dict__", "__weakref__"):
                yield name, getattr(value, name)


def _differs(led: object, held: object) -> bool:
    """Whether ``redirect`` found something: it makes containers anew in any case."""
    if type(held) in (list, tuple):
        return any(map(_differs, led, held))
    if type(held) is dict:
        return any(_differs(led[key], each) for key, each in held.items())
    return led is not held


def _bound(value: object) -> BoundToOriginalError:
    cls = type(value)
    return BoundToOriginalError(
        f"A node before Quantize Model put a {cls.__name__} (of {cls.__module__}) into the model, "
        "which keeps using the unquantized one. Put that node after Quantize Model."
    )
