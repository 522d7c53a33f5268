"""Which layers layerwise casting stores in FP8: diffusers' classes and skip rules.

Skip patterns are regular expressions, searched in a module's full dotted name; skip classes are
matched with all base classes. A hit ends the descent: everything below is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from torch import nn

from ..detect import quantized_as, stored_bytes
from ..errors import PatternError, UnknownNameError
from ..formats import CastFloat8
from ..layers import layer_kind
from ..methods import Choice
from .decisions import (
    ALREADY,
    KEEP,
    QUANTIZE,
    LayerPlan,
    Plan,
)
from .layer_plan import plan_layers
from .plan import checked
from .remainder import Remainder, remainder_of

METHOD = "layerwise-fp8"
STORAGE_DTYPES = ("float8_e4m3fn", "float8_e5m2")
COMPUTE_DTYPES = ("bfloat16", "float16", "float32")
DEFAULT_SKIP_PATTERNS = ("pos_embed", "patch_embed", "norm", "^proj_in$", "^proj_out$")

_CLASSES = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.Linear, nn.Embedding),
)
_REMEDY = "Loosen skip_patterns or skip_classes."


def plan_layerwise(
    module: nn.Module,
    storage_dtype: str = "float8_e4m3fn",
    scaled: bool = True,
    skip_patterns: str | Iterable[str] | None = DEFAULT_SKIP_PATTERNS,
    skip_classes: str | Iterable[type | str] | None = None,
) -> Plan:
    """Plan to store the weights of ``module``'s layers in FP8: Linear, Embedding, Conv1d to Conv3d
    and ConvTranspose1d to ConvTranspose3d.

    skip_patterns, skip_classes (classes or their names): a text of one a line, or an iterable.
    scaled: one scale a tensor (see ``CastFloat8``), or the plain cast.

    UnknownNameError (storage_dtype), PatternError (no regular expression), NothingToQuantizeError.
    """
    _require_storage(storage_dtype)
    patterns, classes = _expressions(skip_patterns), _entries(skip_classes)
    layers, reasons = [], {}
    for name, kind, layer, reason in _layers(module, patterns, classes):
        layers.append((name, kind, layer))
        reasons[name] = reason
    choice = Choice(CastFloat8(storage_dtype, scaled=scaled))
    planned = plan_layers(layers, lambda shape: choice, reasons.get)
    remainder = remainder_of(module, layers)
    return checked(_plan(planned, _unmatched(module, patterns, classes), remainder), _REMEDY)


def plan_whole(module: nn.Module, storage_dtype: str, scaled: bool) -> Plan:
    """Plans to store every floating point parameter of ``module``; the plan's names are those of
    parameters."""
    _require_storage(storage_dtype)
    fmt = CastFloat8(storage_dtype, scaled=scaled)
    planned = []
    for name, parameter in module.named_parameters():
        shape, size = tuple(parameter.shape), stored_bytes(parameter)
        dtype = str(parameter.dtype).removeprefix("torch.")
        quantized = quantized_as(parameter)
        action, reason, after = QUANTIZE, "", fmt.nbytes(shape)
        if quantized or not shape or parameter.is_complex():
            action, after = (ALREADY if quantized else KEEP), size
            reason = f"already quantized: {quantized}" if quantized else "a scalar"
            if parameter.is_complex():
                reason = "its numbers are complex"
        fits = fmt if action == QUANTIZE else None
        planned.append(
            LayerPlan(name, "Parameter", shape, dtype, action, reason, size, after, fits)
        )
    return checked(_plan(tuple(planned)), "Give a module with parameters.")


def _plan(
    layers: tuple[LayerPlan, ...],
    warnings: tuple[str, ...] = (),
    remainder: tuple[Remainder, ...] = (),
) -> Plan:
    return Plan(
        *(METHOD, METHOD, METHOD, "module", "per-tensor", None, layers, warnings),
        remainder=remainder,
    )


def _layers(
    module: nn.Module,
    patterns: tuple[re.Pattern, ...],
    classes: tuple[type | str, ...],
) -> Iterator[tuple[str, str, nn.Module, str | None]]:
    """(name, kind, layer, reason to keep) of every layer, each once, in the module's order."""
    seen: set[int] = set()

    def descend(at: nn.Module, name: str, reason: str | None):
        if id(at) in seen:
            return
        seen.add(id(at))
        reason = reason or _skip_reason(at, name, patterns, classes)
        kind = _cast_kind(at)
        if kind:
            yield name, kind, at, reason or _never_called(at)
            return
        for child_name, child in at.named_children():
            yield from descend(child, f"{name}.{child_name}" if name else child_name, reason)

    yield from descend(module, "", None)


def _cast_kind(module: nn.Module) -> str | None:
    if isinstance(module, _CLASSES):
        return next(cls.__name__ for cls in _CLASSES if isinstance(module, cls))
    return layer_kind(module)


def _never_called(layer: nn.Module) -> str | None:
    if isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return "nn.MultiheadAttention reads this weight without calling its layer"
    return None


def _skip_reason(
    module: nn.Module,
    name: str,
    patterns: tuple[re.Pattern, ...],
    classes: tuple[type | str, ...],
) -> str | None:
    hit = next((pattern for pattern in patterns if pattern.search(name)), None)
    if hit:
        return f"skip pattern {hit.pattern}"
    hit = next((cls for cls in classes if _is_a(module, cls)), None)
    return f"skip class {getattr(hit, '__name__', hit)}" if hit else None


def _is_a(module: nn.Module, cls: type | str) -> bool:
    return any(cls in (base, base.__name__) for base in type(module).__mro__)


def _unmatched(
    module: nn.Module, patterns: tuple[re.Pattern, ...], classes: tuple[type | str, ...]
) -> tuple[str, ...]:
    """Warnings for what the user named and the module does not have."""
    modules = dict(module.named_modules())
    missing = [
        f"Skip pattern {pattern.pattern!r} matches none of {len(modules)} modules."
        for pattern in patterns
        if pattern.pattern not in DEFAULT_SKIP_PATTERNS and not any(map(pattern.search, modules))
    ]
    missing += [
        f"Skip class {getattr(cls, '__name__', cls)!r} matches none of {len(modules)} modules."
        for cls in classes
        if not any(_is_a(m, cls) for m in modules.values())
    ]
    return tuple(missing)


def _expressions(patterns: str | Iterable[str] | None) -> tuple[re.Pattern, ...]:
    expressions = []
    for pattern in _entries(patterns):
        try:
            expressions.append(re.compile(pattern))
        except re.error as error:
            raise PatternError(
                f"Skip pattern {pattern!r} is not a valid regular expression: {error}. "
                "Escape special characters with a backslash."
            ) from error
    return tuple(expressions)


def _entries(values: str | Iterable | None) -> tuple:
    """Not split at commas: regular expressions have them."""
    if isinstance(values, str):
        values = filter(None, map(str.strip, values.splitlines()))
    return tuple(values or ())


def _require_storage(dtype: str) -> None:
    if dtype not in STORAGE_DTYPES:
        raise UnknownNameError("storage dtype", dtype, STORAGE_DTYPES)
