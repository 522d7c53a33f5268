"""Functions that close over a model's modules, made anew over the modules of its copy.

Tested by tests/nodes/bridge/copying/test_closures.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import CellType, FunctionType

Lead = Callable[[object], object]


class Closures:
    """Leads functions into a copied model.

    A function comes back itself where neither it nor a function that it closes over holds anything
    that is led. Else it is made anew, with cells of its own for what is led; its other cells stay
    the same, so that state which it shares with others stays shared. Functions that call each
    other go on to do so, and two that shared a led cell share the new one.

    lead(value): what a cell holds, led into the copy, or ``value`` itself.
    """

    def __init__(self, lead: Lead):
        self._lead = lead
        self._made: dict[int, FunctionType] = {}
        self._cells: dict[int, CellType] = {}
        self._kept: list[object] = []  # whose ids are known must not die
        self._busy: set[int] = set()

    def __call__(self, function: FunctionType) -> FunctionType:
        """``function``, led."""
        if id(function) in self._made or id(function) in self._busy:
            return self._made.get(id(function), function)
        group = list(_reachable(function))
        self._busy |= {id(each) for each in group}
        contents = {id(cell): self._led(cell) for each in group for cell in _cells(each)}
        defaults = {id(each): self._led_defaults(each) for each in group}
        self._busy -= {id(each) for each in group}
        changed = {id(each) for each in group if defaults[id(each)] is not None}
        changed |= {id(f) for f in group if any(contents[id(c)] is not None for c in _cells(f))}
        while grown := {id(f) for f in group if id(f) not in changed and _calls(f, changed)}:
            changed |= grown
        for each in group:
            if id(each) in changed and id(each) not in self._made:
                self._make(each, contents, changed, defaults[id(each)])
        for each in group:
            for cell in _cells(each):
                if id(cell) in self._cells:
                    self._fill(cell, contents[id(cell)])
        return self._made.get(id(function), function)

    def _led(self, cell: CellType) -> tuple[object] | None:
        """What ``cell`` holds, led, in a tuple; None where it stays, or is a function."""
        content = _content(cell)
        if isinstance(content, FunctionType) or content is None:
            return None
        led = self._lead(content)
        return None if led is content else (led,)

    def _led_defaults(self, function: FunctionType) -> tuple[tuple | None, dict | None] | None:
        positional, named = function.__defaults__ or (), function.__kwdefaults__ or {}
        led = tuple(map(self._lead, positional))
        led_named = {name: self._lead(value) for name, value in named.items()}
        same = all(map(_is, led, positional)) and all(map(_is, led_named.values(), named.values()))
        return None if same else (led or None, led_named or None)

    def _make(self, function: FunctionType, contents: dict, changed: set[int], defaults) -> None:
        cells = []
        for cell in _cells(function):
            held = _content(cell)
            if contents[id(cell)] is None and not (
                isinstance(held, FunctionType) and id(held) in changed
            ):
                cells.append(cell)
                continue
            cells.append(self._cells.setdefault(id(cell), CellType()))
        positional, named = defaults or (function.__defaults__, function.__kwdefaults__)
        made = FunctionType(
            *(function.__code__, function.__globals__, function.__name__, positional), tuple(cells)
        )
        made.__kwdefaults__ = named
        made.__dict__.update(function.__dict__)
        self._made[id(function)] = made
        self._kept += [function, *_cells(function)]

    def _fill(self, cell: CellType, led: tuple[object] | None) -> None:
        content = _content(cell)
        self._cells[id(cell)].cell_contents = led[0] if led else self._made[id(content)]


def _reachable(function: FunctionType) -> Iterator[FunctionType]:
    """``function`` and the functions that it closes over, each once."""
    waiting, seen = [function], {id(function)}
    while waiting:
        yield (each := waiting.pop())
        held = [_content(cell) for cell in _cells(each)]
        fresh = [f for f in held if isinstance(f, FunctionType) and id(f) not in seen]
        seen |= {id(f) for f in fresh}
        waiting += fresh


def _calls(function: FunctionType, changed: set[int]) -> bool:
    held = (_content(cell) for cell in _cells(function))
    return any(isinstance(each, FunctionType) and id(each) in changed for each in held)


def _cells(function: FunctionType) -> tuple[CellType, ...]:
    return function.__closure__ or ()


def _content(cell: CellType) -> object:
    """What ``cell`` holds; None where its variable has no value yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _is(one: object, other: object) -> bool:
    return one is other
