"""The node that tells the trained miniature which digits to draw."""

from comfy_api.latest import io

from .classes import class_conditioning


class LabClassConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LabClassConditioning",
            display_name="Lab Class Conditioning",
            category="lab",
            description="Digits in place of a prompt, one a picture, for the trained miniature.",
            inputs=[
                io.String.Input("digits", default="7", tooltip="Empty: the negative."),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, digits) -> io.NodeOutput:
        return io.NodeOutput(class_conditioning(digits))
