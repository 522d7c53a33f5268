"""The node "Quantize ControlNet"."""

from __future__ import annotations

from comfy_api.latest import io

from .shared.node_inputs import AUTO, config_input, fingerprint, method_input, work_inputs

MODEL_PATCH = io.Custom("MODEL_PATCH")


class GQQuantizeControlNet(io.ComfyNode):
    """The node that quantizes a ControlNet, a T2I-Adapter or a model patch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQQuantizeControlNet",
            display_name="Quantize ControlNet (and model patches)",
            category="model/quantization",
            description=(
                "Stores the weights of a ControlNet, Control-LoRA, T2I-Adapter or model patch in "
                "FP8, INT8 or fewer bits, convolutions included. What goes in stays as it is."
            ),
            search_aliases=["fp8", "int8", "int4", "quant", "ControlNet", "T2I", "model patch"],
            inputs=[
                io.ControlNet.Input(
                    "control_net",
                    optional=True,
                    tooltip="The ControlNet to quantize, from its loader. It is not changed.",
                ),
                MODEL_PATCH.Input(
                    "model_patch",
                    optional=True,
                    tooltip="Or a model patch, from Load Model Patch. It is not changed.",
                ),
                method_input("How the weights are stored. auto: the best choice on this machine."),
                *work_inputs(),
                config_input("method and exclude"),
            ],
            outputs=[
                io.ControlNet.Output(
                    display_name="CONTROL_NET", tooltip="The quantized ControlNet, if one went in."
                ),
                MODEL_PATCH.Output(
                    display_name="MODEL_PATCH", tooltip="The quantized model patch, if one went in."
                ),
                io.String.Output(display_name="report", tooltip="What was quantized and kept."),
            ],
            has_intermediate_output=True,
        )

    @classmethod
    def fingerprint_inputs(cls, method=None, **_) -> int:
        return fingerprint(method)

    @classmethod
    def execute(
        cls,
        method,
        control_net=None,
        model_patch=None,
        exclude="",
        compute_device=AUTO,
        config=None,
    ) -> io.NodeOutput:
        from ..quant_core.hardware import hardware_of
        from ..quant_core.report import Report
        from .bridge.model.controlnet import quantize_control, quantize_patch, target_of
        from .shared.method_choice import MethodChoice, choose_for_control, resolve_device
        from .shared.node_output import output_of_parts

        inputs = {"control_net": control_net, "model_patch": model_patch}
        work = {"control_net": quantize_control, "model_patch": quantize_patch}
        done, reports, notes = dict(inputs), {}, ()
        for name, source in inputs.items():
            if source is None:
                continue
            target = target_of(source)
            hardware = hardware_of(target.device)
            chosen = MethodChoice(method, exclude=exclude)
            chosen = choose_for_control(chosen, config, hardware)
            device = resolve_device(compute_device, target.device)
            plan = target.plan(chosen.method, chosen.granularity, chosen.exclude, hardware)
            if plan.quantized:
                done[name], reports[name] = work[name](source, plan, device)
            else:
                size = plan.bytes_before
                reports[name] = Report(plan, "unchanged", 0.0, size, size)
            notes = chosen.notes
        if not reports:
            raise ValueError(
                "Nothing is connected. Connect a ControlNet to control_net, or a model patch to "
                "model_patch."
            )
        before = sum(report.model_bytes_before for report in reports.values())
        after = sum(report.model_bytes_after for report in reports.values())
        return output_of_parts(tuple(done.values()), reports, before, after, notes=notes)
