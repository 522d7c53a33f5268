"""Copies a model as a second tree of modules over the same storage.

``ModelPatcher.clone()`` shares its module, so a node that edits layers edits every branch of the
graph. ``copy.deepcopy`` would double the memory and fails on attributes that can't be copied.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MethodType

import torch
from comfy.weight_adapter import BypassForwardHook
from torch import nn

from .residency import RESIDENCY

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_state_dict_hooks", "_backward_hooks")


def copy_modules(
    root: nn.Module, parameter: Callable[[str, nn.Parameter], torch.Tensor | None]
) -> nn.Module:
    """Copy every module of ``root``; parameters are new objects over the same storage.

    parameter(full name, parameter) gives the tensor to use: the same, or another (say the pristine
    weight where a LoRA is patched in at the moment), or None to leave the place empty.

    Shared modules stay shared, parameters tied in ``root`` stay tied, and references from one
    module to another (plain attributes, bound methods) lead into the copy.
    """
    modules: dict[int, nn.Module] = {}
    parameters: dict[int, nn.Parameter] = {}

    def copy_parameter(name: str, old: nn.Parameter) -> nn.Parameter | None:
        data = parameter(name, old)
        if data is None:
            return None
        if id(old) not in parameters:
            parameters[id(old)] = nn.Parameter(data.detach(), requires_grad=False)
            parameters[id(old)].__dict__.update(_plain_attributes(old))
        return parameters[id(old)]

    def copy_module(old: nn.Module, prefix: str) -> nn.Module:
        if id(old) in modules:
            return modules[id(old)]
        new = modules[id(old)] = _empty_copy(old)
        for name, value in old._parameters.items():
            new._parameters[name] = None if value is None else copy_parameter(prefix + name, value)
        for name, child in old._modules.items():
            new._modules[name] = None if child is None else copy_module(child, f"{prefix}{name}.")
        return new

    copied = copy_module(root, "")
    for module in modules.values():
        for name, value in list(module.__dict__.items()):
            if not name.startswith("_") or isinstance(value, MethodType):
                module.__dict__[name] = redirect(value, modules)
    return copied


def _empty_copy(old: nn.Module) -> nn.Module:
    new = type(old).__new__(type(old))  # copy.copy refuses modules with weight norm
    new.__dict__.update(old.__dict__)
    new._parameters, new._modules = {}, {}
    new._buffers = dict(old._buffers)
    for name in _HOOKS:
        setattr(new, name, copy.copy(getattr(old, name)))
    for name in RESIDENCY:
        new.__dict__.pop(name, None)
    for name, empty in (("weight_function", []), ("bias_function", []), ("current_patcher", None)):
        if name in new.__dict__:
            setattr(new, name, empty)
    new._compiled_call_impl = None  # it would call the original
    # A bypassed LoRA of a patcher that is loaded: it comes with its patcher, not with the model.
    while isinstance(getattr(new.__dict__.get("forward"), "__self__", None), BypassForwardHook):
        new.forward = new.forward.__self__.original_forward
    return new


def _plain_attributes(parameter: nn.Parameter) -> dict:
    """What ComfyUI notes on a parameter itself, such as its load-time dtype."""
    if type(parameter) is not nn.Parameter:
        return {}
    return {k: v for k, v in vars(parameter).items() if not isinstance(v, torch.Tensor)}


def redirect(value: object, copies: Mapping[int, object]) -> object:
    """``value`` with references to copied objects (``copies``, by the original's id) led into their
    copies: the value itself, the owner of a bound method, and one container deep."""
    if id(value) in copies:
        return copies[id(value)]
    if isinstance(value, MethodType) and id(value.__self__) in copies:
        return MethodType(value.__func__, copies[id(value.__self__)])
    if type(value) in (list, tuple):
        return type(value)(redirect(item, copies) for item in value)
    if type(value) is dict:
        return {key: redirect(item, copies) for key, item in value.items()}
    return value
