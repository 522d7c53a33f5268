"""What the pack's pages ask the server: one GET route, which tells nothing but the hardware."""

from __future__ import annotations

from aiohttp import web
from comfy.model_management import get_torch_device
from server import PromptServer

from ..quant_core import (
    COMPILE_MODES,
    METHODS,
    Hardware,
    get_quant_compile_warnings,
    get_recommended_method,
    hardware_of,
)
from ..quant_core.methods import method_for

CAPABILITIES = "/graphquant/capabilities"


def capabilities(hardware: Hardware) -> dict:
    """What each method is on ``hardware``, as plain values.

    methods: {name: {native, runs_as, reason, compile}}; reason says why it is not native, compile
    maps the torch.compile modes that the method quarrels with to a warning.
    """
    return {
        "device": hardware.name,
        "recommended": get_recommended_method(hardware),
        "methods": {name: _method(name, hardware) for name in METHODS},
    }


def _method(name: str, hardware: Hardware) -> dict:
    chosen, reason = method_for(name, hardware)
    warnings = {mode: get_quant_compile_warnings(name, mode) for mode in COMPILE_MODES}
    return {
        "native": reason is None,
        "runs_as": chosen.name,
        "reason": reason,
        "compile": {mode: texts[0] for mode, texts in warnings.items() if texts},
    }


def add_routes() -> None:
    """Serve GET /graphquant/capabilities from ComfyUI's own server."""

    @PromptServer.instance.routes.get(CAPABILITIES)
    async def get_capabilities(request: web.Request) -> web.Response:
        return web.json_response(capabilities(hardware_of(get_torch_device())))
