"""The inputs of nodes that sample in order to measure: KSampler's, by the same names.

Tested by tests/nodes/test_compare_models.py.
"""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io


def sampler_inputs(steps: int, cfg: float, optional: bool) -> list[io.Input]:
    """The inputs seed, steps, cfg, sampler_name and scheduler, with these defaults."""
    seed = io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        optional=optional,
        # The editor gives every "seed" a dice: each Run would measure, and quantize, anew.
        control_after_generate=False,
        tooltip="The seed of the noise.",
    )
    return [
        seed,
        io.Int.Input(
            "steps",
            default=steps,
            min=1,
            max=1000,
            optional=optional,
            tooltip="How many steps the sampler takes.",
        ),
        io.Float.Input(
            "cfg",
            default=cfg,
            min=0.0,
            max=100.0,
            step=0.1,
            optional=optional,
            tooltip="Guidance, as in KSampler. 1 leaves the negative out.",
        ),
        io.Combo.Input(
            "sampler_name",
            options=list(comfy.samplers.KSampler.SAMPLERS),
            default="euler",
            optional=optional,
            tooltip="The sampler, as in KSampler.",
        ),
        io.Combo.Input(
            "scheduler",
            options=list(comfy.samplers.KSampler.SCHEDULERS),
            default="simple",
            optional=optional,
            tooltip="How the noise levels of the steps are spaced, as in KSampler.",
        ),
    ]
