"""What the pack's pages ask the server: a GET route that tells nothing but the hardware; and the
pages and examples themselves, where ComfyUI does not serve them."""

from __future__ import annotations

import asyncio
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from comfy.model_management import get_torch_device
from server import PromptServer

from ..quant_core.machine.compile_warnings import COMPILE_MODES, get_quant_compile_warnings
from ..quant_core.methods import FASTEST, FIT, GRANULARITIES, METHODS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..quant_core.formats import Format
    from ..quant_core.machine.capability import Capability, MethodCapability

CAPABILITIES = "/graphquant/capabilities"
ESTIMATE = "/graphquant/estimate"
# What serves the methods that choose among others' formats when they run.
_OF_MEASURED = {
    FASTEST: ("granularity", "max_error", "exact_steps"),
    FIT: ("size_gib", "stock_only", "exact_steps"),
}
# Not resolved: the folder's name in custom_nodes is what the pages are asked for under.
PACK = Path(__file__).parent.parent


def capabilities(found: Capability) -> dict:
    """What each method is on the examined machine, as plain values.

    methods: {name: {status, runs_as, reason, remedy, compile, in_text_encoder,
    in_quantized_encoder}}; compile maps the torch.compile modes that the method quarrels with to a
    warning. only_for: {input of a Quantize node: the methods for which it does something}.
    need_calibration: names of methods.
    """
    return {
        "device": found.machine.hardware.name,
        "recommended": found.recommended,
        "methods": {each.method: _method(each) for each in found.methods},
        "only_for": only_for(),
        "need_calibration": [name for name in METHODS if any(map(_needs, _formats(name)))],
    }


def only_for() -> dict[str, list[str]]:
    """For each input that serves some methods alone: which. Asked of the methods' formats, but for
    the two that choose among others' formats when they run."""
    asked: dict[str, Callable[[Format], bool]] = {
        "exact_steps": lambda fmt: fmt.weight_only() != fmt,
        "rank": lambda fmt: fmt.with_rank(7) != fmt.with_rank(8),
    }
    found = {
        name: [each for each in METHODS if any(map(says, _formats(each)))]
        for name, says in asked.items()
    }
    found["granularity"] = [m for m in METHODS if len({str(fmt) for fmt in _formats(m)}) > 1]
    for method, inputs in _OF_MEASURED.items():
        for name in inputs:
            found.setdefault(name, []).append(method)
    return found


def _formats(method: str) -> list[Format]:
    """The formats of one layer, at each granularity."""
    choose = METHODS[method].choose
    chosen = (choose((256, 256), each).format for each in GRANULARITIES)
    return [fmt for fmt in chosen if fmt is not None]


def _needs(fmt: Format) -> bool:
    return fmt.needs_calibration or fmt.needs_input_scale


def _method(each: MethodCapability) -> dict:
    from .bridge.model.text_encoders import weight_only

    warnings = {mode: get_quant_compile_warnings(each.method, mode) for mode in COMPILE_MODES}
    return {
        "status": each.status,
        "runs_as": each.runs_as,
        "reason": each.reason,
        "remedy": each.remedy,
        "compile": {mode: texts[0] for mode, texts in warnings.items() if texts},
        "in_text_encoder": weight_only(each.method),
        "in_quantized_encoder": weight_only(each.method, quantized=True),
    }


@lru_cache(maxsize=1)
def _this_machine() -> dict:
    from ..quant_core.machine.capability import examine
    from .bridge.tensor.native import has_compiled_int8

    return capabilities(examine(get_torch_device(), has_compiled_int8()))


def add_routes() -> None:
    """Serve GET /graphquant/capabilities and /graphquant/estimate?folder=&name= from ComfyUI's
    server, and the pack's own files under the addresses where the editor looks for them and ComfyUI
    does not serve them."""
    if not re.fullmatch(r"[\w.~-]+", PACK.name, re.ASCII):
        # In a folder such as "my pack": aiohttp's static route, which ComfyUI makes for each pack,
        # compares the quoted name with an unquoted path and never matches.
        _serve("/extensions", PACK.name, PACK / "web")
        _serve("/workflow_templates", PACK.name, PACK / "example_workflows")
    if "." in PACK.name:
        # In a folder such as "graphquant-0.1.0": the Info panel asks for help by the name up to
        # the first dot.
        _serve("/extensions", PACK.name.split(".")[0], PACK / "web", "docs/GQ.+")

    @PromptServer.instance.routes.get(CAPABILITIES)
    async def get_capabilities(request: web.Request) -> web.Response:
        # In a thread: trying out the methods must not hold up the server.
        return web.json_response(await asyncio.to_thread(_this_machine))

    @PromptServer.instance.routes.get(ESTIMATE)
    async def get_estimate(request: web.Request) -> web.Response:
        from ..quant_core.errors import QuantizationError
        from .bridge.files.estimates import estimates

        asked = request.query
        names = asked.get("folder", ""), asked.get("name", ""), asked.get("component")
        try:
            return web.json_response(await asyncio.to_thread(estimates, *names))
        except (QuantizationError, OSError) as error:
            return web.json_response({"problem": str(error)}, status=404)


def _serve(prefix: str, name: str, folder: Path, paths: str = ".+") -> None:
    """GET {prefix}/{name}/{path} from ``folder``, for a path that is like the regex ``paths``."""
    folder = folder.resolve()
    pattern = re.sub(r"[^\w-]", ".", name)

    @PromptServer.instance.routes.get(f"{prefix}/{{pack:{pattern}}}/{{path:{paths}}}")
    async def get_file(request: web.Request) -> web.FileResponse:
        file = (folder / request.match_info["path"]).resolve()
        if not file.is_relative_to(folder) or not file.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(file)
