"""Moves what earlier nodes attached to a model's modules over to the modules of its copy.

The quantized model has modules of its own. A bypassed LoRA, a compiled block or a replaced method
that still pointed to the original's would run unquantized weights, or nothing, without a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

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

from .leading import BoundToOriginalError, Lead
from .model_copy import redirect


def rebind(
    patcher: ModelPatcher,
    original: nn.Module,
    patches: Mapping[str, list] = MappingProxyType({}),
) -> None:
    """Make what ``patcher``, a clone with a copied model, holds of ``original`` refer to the copy.
    patches: those of the patcher that it was cloned from.

    BoundToOriginalError for a compiled module in ComfyUI's object patches, and for what ``Lead``
    cannot lead.
    """
    copied = dict(patcher.model.named_modules())
    copies = {
        id(module): copied[name] for name, module in original.named_modules() if name in copied
    }
    for key, value in patcher.object_patches.items():
        patcher.object_patches[key] = _redirected(key, value, copies)
    lead = Lead(copies, patcher, patches)
    patcher.model_options = lead(patcher.model_options)
    patcher.wrappers, patcher.callbacks = lead(patcher.wrappers), lead(patcher.callbacks)
    for key, injections in patcher.injections.items():
        patcher.injections[key] = [
            bound for injection in injections for bound in _inject_into(injection, patcher.model)
        ]
    _compile_again(patcher)


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
