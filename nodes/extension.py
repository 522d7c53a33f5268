"""The pack as ComfyUI sees it: its list of nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .quantize_model import GQQuantizeModel


class GraphQuantExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [GQQuantizeModel]
