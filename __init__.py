"""GraphQuant: quantize the models of a ComfyUI graph, inside the graph.

Nothing is imported here: ComfyUI's start-up, and a test runner that meets this file, pay nothing.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from comfyui_version import __version__

    from .nodes.compatibility import require_comfyui

    require_comfyui(__version__)
    from .nodes.extension import GraphQuantExtension

    return GraphQuantExtension()
