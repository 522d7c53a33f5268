"""The node that tells the trained miniature which digit to draw."""

from comfy_api.latest import io

from .classes import ANY, class_conditioning


class LabClassConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LabClassConditioning",
            display_name="Lab Class Conditioning",
            category="lab",
            description="A digit in place of a prompt, for the trained miniature.",
            inputs=[
                io.Int.Input(
                    "digit", default=0, min=ANY, max=9, tooltip="-1: any digit (the negative)."
                ),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, digit) -> io.NodeOutput:
        return io.NodeOutput(class_conditioning(digit))
