"""A plan that accounts for what ComfyUI counts as a model's size, byte for byte.

ComfyUI's ``model_size()`` counts the state dict of the whole model: with what it holds beside the
diffusion model, such as the sampler's tables, and without buffers that no state dict has.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ....quant_core.planning.decisions import Plan
from ....quant_core.planning.remainder import NOT_SAVED, Remainder

MIB = 1024**2


def of_whole_size(plan: Plan, model: nn.Module, component: nn.Module) -> Plan:
    """``plan`` of ``component``, which is ``model`` or one of its children: its bytes_before and
    bytes_after are ComfyUI's sizes of ``model``. A note says what is not counted, from 1 MiB."""
    uncounted = sum(each.bytes for each in plan.remainder if each.reason == NOT_SAVED)
    counted = [each for each in plan.remainder if each.reason != NOT_SAVED]
    beside = [] if model is component else _beside(model, component)
    remainder = tuple(sorted([*counted, *beside], key=lambda each: -each.bytes))
    notes = plan.notes
    if uncounted >= MIB:
        notes += (
            f"{uncounted / MIB:.1f} MiB of buffers are not counted: no state dict has them, and "
            "ComfyUI's own size of a model leaves them out.",
        )
    return replace(plan, remainder=remainder, notes=notes)


def _beside(model: nn.Module, component: nn.Module) -> list[Remainder]:
    sizes = {
        f"{name}.{key}": tensor.nbytes
        for name, child in model.named_children()
        if child is not component
        for key, tensor in child.state_dict().items()
    }
    names = tuple(sorted(sizes, key=lambda name: -sizes[name]))
    reason = "ComfyUI keeps it beside the diffusion model, such as the sampler's table of sigmas"
    return [Remainder("buffer", reason, names, sum(sizes.values()))] if sizes else []
