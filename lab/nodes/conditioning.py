"""The node that stands where a text encoder would."""

from comfy_api.latest import io

from .noise import conditioning


class LabConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LabConditioning",
            display_name="Lab Conditioning",
            category="lab",
            description="Seeded noise in place of an encoded prompt, for tests and the demo.",
            inputs=[
                io.Int.Input("seed", default=0, min=0, max=2**32),
                io.Int.Input("width", default=256, min=1, max=8192),
                io.Int.Input("length", default=32, min=1, max=1024),
                io.Int.Input("pooled_width", default=64, min=1, max=8192),
                io.Float.Input("guidance", default=3.5, min=0.0, max=100.0),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, seed, width, length, pooled_width, guidance) -> io.NodeOutput:
        return io.NodeOutput(conditioning(seed, width, length, pooled_width, guidance))
