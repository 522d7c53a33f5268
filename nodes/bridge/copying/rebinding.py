"""Moves what earlier nodes attached to a model's modules over to the modules of its copy.

The quantized model has modules of its own. A bypassed LoRA, a compiled block or a replaced method
that still pointed to the original's would run unquantized weights, or nothing, without a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import CellType, FunctionType

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import PatcherInjection, WrappersMP
from comfy.weight_adapter import BypassInjectionManager
from comfy_api.torch_helpers.torch_compile import (
    COMPILE_KEY,
    TORCH_COMPILE_KWARGS,
    set_torch_compile_wrapper,
)
from torch import nn
from torch._dynamo.eval_frame import OptimizedModule

from .model_copy import redirect


class BoundToOriginalError(ValueError):
    """A node before Quantize Model refers to a module that cannot be moved to the copy."""


def rebind(patcher: ModelPatcher, original: nn.Module) -> None:
    """Make what ``patcher``, a clone with a copied model, holds of ``original`` refer to the copy.

    BoundToOriginalError for a compiled module in ComfyUI's object patches.
    """
    copied = dict(patcher.model.named_modules())
    copies = {
        id(module): copied[name] for name, module in original.named_modules() if name in copied
    }
    for key, value in patcher.object_patches.items():
        patcher.object_patches[key] = _redirected(key, value, copies)
    patcher.model_options = _options(patcher.model_options, copies)
    for key, injections in patcher.injections.items():
        patcher.injections[key] = [
            bound for injection in injections for bound in _inject_into(injection, patcher.model)
        ]
    _compile_again(patcher)


def _options(value: object, copies: Mapping[int, nn.Module]) -> object:
    """A patcher's options with every wrapper and patch in them led into the copy: TeaCache's and
    others close over the diffusion model, whose forward they replace while it runs."""
    if type(value) is dict:
        return {key: _options(item, copies) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_options(item, copies) for item in value)
    return _closing_over(value, copies) if isinstance(value, FunctionType) else value


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


def copy_to_devices(patcher: ModelPatcher) -> None:
    """Give every further GPU of MultiGPU CFG Split a copy of ``patcher``'s model, in place of the
    original's that it has."""
    clones = patcher.get_additional_models_with_key("multigpu")
    if clones:
        copies = [patcher.deepclone_multigpu(clone.load_device) for clone in clones]
        for copied in copies:
            copied.is_multigpu_base_clone = True
        patcher.set_additional_models("multigpu", copies)
        patcher.match_multigpu_clones()


def _redirected(key: str, value: object, copies: Mapping[int, nn.Module]) -> object:
    if isinstance(value, OptimizedModule) and id(value._orig_mod) in copies:
        raise BoundToOriginalError(
            f"{key} is compiled before it is quantized. Put the node that compiles it after "
            "Quantize Model."
        )
    return redirect(value, copies)


def _inject_into(injection: PatcherInjection, model: nn.Module) -> list[PatcherInjection]:
    """A bypassed LoRA's hooks on ``model``; any other injection as it is, because what it hangs its
    modules on is the patcher that it is called with."""
    cells = getattr(injection.inject, "__closure__", None) or ()
    for cell in cells:
        if isinstance(cell.cell_contents, BypassInjectionManager):
            bound = BypassInjectionManager()
            bound.adapters = dict(cell.cell_contents.adapters)
            return bound.create_injections(model)
    return [injection]


def _compile_again(patcher: ModelPatcher) -> None:
    wrappers = patcher.get_wrappers(WrappersMP.APPLY_MODEL, COMPILE_KEY)
    options = patcher.model_options.get(TORCH_COMPILE_KWARGS)
    if not wrappers or options is None:
        return
    keys = [
        key
        for wrapper in wrappers
        for cell in wrapper.__closure__ or ()
        if isinstance(cell.cell_contents, dict)
        for key in cell.cell_contents
    ]
    set_torch_compile_wrapper(patcher, keys=keys, **options)
