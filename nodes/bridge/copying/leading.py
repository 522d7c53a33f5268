"""What nodes put into a patcher's options, led from a model's modules into those of its copy.

TeaCache's and others' wrappers close over the diffusion model, whose forward they replace while it
runs; attention replacers are objects that hold a block. One that still led to the original's would
act on modules that do not run.

Tested by tests/nodes/bridge/copying/test_shapes.py.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from types import CellType, FunctionType, MethodType

from comfy.model_patcher import ModelPatcher
from torch import nn

from .model_copy import redirect


class BoundToOriginalError(ValueError):
    """A node before Quantize Model refers to a module that cannot be moved to the copy."""


class Lead:
    """Leads values into a copied model. copies: the copy of each module, by the original's id.

    Functions, partials, bound methods and objects that hold a module are made anew over the same
    state; each object once, so that what was one stays one. All others come back themselves.
    BoundToOriginalError for a ModelPatcher of the original, or a module with one of its inside.
    """

    def __init__(self, copies: Mapping[int, nn.Module]):
        self._copies = copies
        self._made: dict[int, object] = {}

    def __call__(self, value: object) -> object:
        """``value``, containers of any depth included."""
        if id(value) in self._copies:
            return self._copies[id(value)]
        if type(value) is dict:
            return {key: self(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(map(self, value))
        if isinstance(value, FunctionType):
            return _closing_over(value, self._copies)
        if isinstance(value, partial):
            return self._partial(value)
        if isinstance(value, MethodType):
            owner = self(value.__self__)
            return value if owner is value.__self__ else MethodType(value.__func__, owner)
        return self._object(value)

    def _partial(self, value: partial) -> partial:
        function, arguments = self(value.func), [self(each) for each in value.args]
        named = {key: self(each) for key, each in value.keywords.items()}
        held = ((function, value.func), (arguments, [*value.args]), (named, value.keywords))
        if not any(_differs(led, each) for led, each in held):
            return value
        return partial(function, *arguments, **named)

    def _object(self, value: object) -> object:
        if isinstance(value, nn.Module | ModelPatcher | type):
            if isinstance(value, nn.Module) and any(id(m) in self._copies for m in value.modules()):
                raise _bound(value)
            return value
        if id(value) not in self._made:
            self._made[id(value)] = self._with_led_attributes(value)
        return self._made[id(value)]

    def _with_led_attributes(self, value: object) -> object:
        held = getattr(value, "__dict__", {})
        if any(map(self._is_of_original, held.values())):
            raise _bound(value)
        led = {name: redirect(each, self._copies) for name, each in held.items()}
        if not any(_differs(led[name], each) for name, each in held.items()):
            return value
        made = copy.copy(value)
        made.__dict__.update(
            {name: each for name, each in led.items() if _differs(each, held[name])}
        )
        return made

    def _is_of_original(self, value: object) -> bool:
        return isinstance(value, ModelPatcher) and id(value.model) in self._copies


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


def _closing_over(
    function: FunctionType, copies: Mapping[int, nn.Module], above: frozenset[int] = frozenset()
) -> FunctionType:
    """``function`` over the same cells, so that state it shares with others stays shared; only a
    cell that holds a copied module, its method, or a function over one, is replaced. above: the
    functions that this one was found in, which it may call."""
    above |= {id(function)}
    cells = [_cell(cell, copies, above) for cell in function.__closure__ or ()]
    if all(new is old for new, old in zip(cells, function.__closure__ or (), strict=True)):
        return function
    made = FunctionType(
        *(function.__code__, function.__globals__, function.__name__, function.__defaults__),
        tuple(cells),
    )
    made.__kwdefaults__ = function.__kwdefaults__
    made.__dict__.update(function.__dict__)
    return made


def _cell(cell: CellType, copies: Mapping[int, nn.Module], above: frozenset[int]) -> CellType:
    try:
        content = cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return cell
    if isinstance(content, list | tuple | dict) or id(content) in above:
        return cell
    led = redirect(content, copies)
    if isinstance(content, FunctionType):
        led = _closing_over(content, copies, above)
    return cell if led is content else CellType(led)
