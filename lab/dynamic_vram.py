"""ComfyUI's dynamic VRAM on a CPU: its own patcher and staging, over a buffer in place of a GPU's.

What aimdo's library does is stood in for: it keeps a buffer for each layer, and forgets on request
what is in it. All else is ComfyUI's code, but for the choice of it in ``cast_bias_weight``.
"""

from __future__ import annotations

from collections import Counter

import torch

_ALIGNED = 512


class StagingArea:
    """Stands in for aimdo's ModelVBAR: places are (area, address, bytes), and ComfyUI may join
    those that follow one another. budget: bytes that may be staged at a time."""

    def __init__(self, budget: int | None):
        self.budget = budget
        self.faults = 0
        self.end = 0
        self.buffers: dict[int, torch.Tensor] = {}
        self.resident: dict[int, int] = {}

    def alloc(self, size: int) -> tuple[StagingArea, int, int]:
        address = -(-self.end // _ALIGNED) * _ALIGNED
        self.buffers[address] = torch.zeros(size, dtype=torch.uint8)
        self.end = address + size
        return self, address, size

    def fault(self, address: int, size: int) -> tuple[int, ...] | None:
        """The signature of what lies in the place, another each time; None: there is no room."""
        inside = [start for start in self.buffers if address <= start < address + size]
        signatures = tuple(self._fault(start) for start in inside)
        return None if None in signatures else signatures

    def _fault(self, start: int) -> int | None:
        buffer = self.buffers[start]
        if start not in self.resident:
            if self.budget is not None and self.loaded_size() + buffer.nbytes > self.budget:
                return None
            self.faults += 1
            self.resident[start] = self.faults
            buffer.fill_(255)
        return self.resident[start]

    def prioritize(self) -> None:
        pass

    def loaded_size(self) -> int:
        return sum(self.buffers[start].nbytes for start in self.resident)

    def free_memory(self, size: float) -> int:
        freed = self.loaded_size()
        for start in self.resident:
            self.buffers[start].fill_(255)
        self.resident.clear()
        return freed


class _NoHostBuffer:
    size = 0

    def __init__(self, *_):
        pass


def dynamic_vram(monkeypatch, budget: int | None = None) -> tuple[type, Counter[str]]:
    """A class of patchers, to make one of a model with, and how often a layer was "staged",
    "resident" or "without room" when it was called. monkeypatch: pytest's."""
    import comfy.ops
    import comfy_aimdo.host_buffer
    import comfy_aimdo.model_vbar
    import comfy_aimdo.torch
    from comfy.cli_args import args
    from comfy.model_patcher import ModelPatcherDynamic

    class Dynamic(ModelPatcherDynamic):
        def __new__(cls, *_, **__):
            return object.__new__(cls)  # stock's answers for a CPU with a plain ModelPatcher

        def _vbar_get(self, create=False):
            areas = self.model.dynamic_vbars
            if create and self.load_device not in areas:
                areas[self.load_device] = StagingArea(budget)
            return areas.get(self.load_device)

        def partially_unload(self, device_to, memory_to_free=0, force_patch_weights=False):
            area = self._vbar_get()
            return self.restore_loaded_backups() + (area.free_memory(memory_to_free) if area else 0)

        def partially_unload_ram(self, *_):
            return 0

    calls: Counter[str] = Counter()
    stock = comfy.ops.cast_bias_weight

    def cast(layer, input=None, dtype=None, device=None, bias_dtype=None, *more, **options):
        if not hasattr(layer, "_v"):
            return stock(layer, input, dtype, device, bias_dtype, *more, **options)
        if input is not None:
            dtype, device = dtype or input.dtype, device or input.device
        dtype = dtype or layer.weight.dtype
        bias_dtype = bias_dtype or dtype
        comfy.ops.cast_modules_with_vbar([layer], dtype, device, bias_dtype, False)
        staging = layer._prefetch
        way = "without room" if staging["signature"] is None else "staged"
        calls["resident" if staging["resident"] else way] += 1
        weight, bias = comfy.ops.resolve_cast_module_with_vbar(
            layer, dtype, device, bias_dtype, None, False
        )
        for name in ("weight_lowvram_function", "bias_lowvram_function"):
            if getattr(layer, name, None) is not None:
                getattr(layer, name).clear_prepared()
        del layer._prefetch
        return weight, bias, (None, None, None)

    vbar = comfy_aimdo.model_vbar
    monkeypatch.setattr(comfy.ops, "cast_bias_weight", cast)
    monkeypatch.setattr(vbar, "vbar_fault", lambda place: place[0].fault(*place[1:]))
    monkeypatch.setattr(vbar, "vbar_unpin", lambda place: None)
    monkeypatch.setattr(vbar, "vbar_signature_compare", lambda a, b: a is not None and a == b)
    monkeypatch.setattr(
        comfy_aimdo.torch, "aimdo_to_tensor", lambda place, device: place[0].buffers[place[1]]
    )
    monkeypatch.setattr(comfy_aimdo.host_buffer, "HostBuffer", _NoHostBuffer)
    monkeypatch.setattr(args, "disable_pinned_memory", True)
    return Dynamic, calls
