"""What the pack's pages ask the server: one GET route, which tells nothing but the hardware."""

from __future__ import annotations

import asyncio
from functools import lru_cache

from aiohttp import web
from comfy.model_management import get_torch_device
from server import PromptServer

from ..quant_core import COMPILE_MODES, get_quant_compile_warnings
from ..quant_core.capability import Capability, MethodCapability, examine
from .patching.encoders import weight_only

CAPABILITIES = "/graphquant/capabilities"


def capabilities(found: Capability) -> dict:
    """What each method is on the examined machine, as plain values.

    methods: {name: {status, runs_as, reason, remedy, compile, in_text_encoder}}; compile maps the
    torch.compile modes that the method quarrels with to a warning.
    """
    return {
        "device": found.machine.hardware.name,
        "recommended": found.recommended,
        "methods": {each.method: _method(each) for each in found.methods},
    }


def _method(each: MethodCapability) -> dict:
    warnings = {mode: get_quant_compile_warnings(each.method, mode) for mode in COMPILE_MODES}
    return {
        "status": each.status,
        "runs_as": each.runs_as,
        "reason": each.reason,
        "remedy": each.remedy,
        "compile": {mode: texts[0] for mode, texts in warnings.items() if texts},
        "in_text_encoder": weight_only(each.method),
    }


@lru_cache(maxsize=1)
def _this_machine() -> dict:
    return capabilities(examine(get_torch_device()))


def add_routes() -> None:
    """Serve GET /graphquant/capabilities from ComfyUI's own server."""

    @PromptServer.instance.routes.get(CAPABILITIES)
    async def get_capabilities(request: web.Request) -> web.Response:
        # In a thread: trying out the methods must not hold up the server.
        return web.json_response(await asyncio.to_thread(_this_machine))
