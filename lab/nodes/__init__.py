"""Nodes for tests and the demo only: they stand in for text encoders and their gigabytes."""


async def comfy_entrypoint():
    from comfy_api.latest import ComfyExtension

    from .class_conditioning import LabClassConditioning
    from .clip import LabDualClip, LabSaveConditioning
    from .conditioning import LabConditioning

    class LabExtension(ComfyExtension):
        async def get_node_list(self):
            return [LabConditioning, LabClassConditioning, LabDualClip, LabSaveConditioning]

    return LabExtension()
