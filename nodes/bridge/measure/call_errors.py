"""Single calls of two MODELs on the same inputs: all along the reference's own run.

The reference samples first, and what it predicts at each call is kept: latents, which are small.
Then the other MODEL goes through the same run. At each call it predicts, is compared, and what the
reference predicted goes to the sampler in its place. So the sampler's next inputs are, bit by bit,
the reference's; each MODEL gets the conditioning, patches and memory that ComfyUI gives it; and one
is loaded at a time.

Tested by tests/nodes/test_compare_models.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ....quant_core.measure.comparison import CallError
from ....quant_core.measure.relative_error import RunningError

_KEY = "graphquant.compare"

Predictions = list[list[torch.Tensor]]


def recording(model: ModelPatcher, predictions: Predictions) -> ModelPatcher:
    """A clone of ``model`` that adds what it predicts at each call, on the CPU."""

    def record(executor: Callable, base, conds, x, timestep, model_options):
        results = executor(base, conds, x, timestep, model_options)
        predictions.append([result.cpu() for result in results])
        return results

    return _wrapped(model, record)


def following(
    model: ModelPatcher, predictions: Predictions, errors: list[CallError]
) -> ModelPatcher:
    """A clone of ``model`` that is led along the run of ``predictions``, and adds its errors."""
    waiting = iter(predictions)

    def follow(executor: Callable, base, conds, x, timestep, model_options):
        results = executor(base, conds, x, timestep, model_options)
        expected = [each.to(x.device) for each in next(waiting)]
        running = RunningError()
        for cond, result, reference in zip(conds, results, expected, strict=True):
            if cond is not None:  # cfg 1 leaves the negative out
                running.add(x - result, x - reference)
        errors.append(CallError(timestep.flatten()[0].item(), running.error()))
        return expected

    return _wrapped(model, follow)


def _wrapped(model: ModelPatcher, wrapper: Callable) -> ModelPatcher:
    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, _KEY, wrapper)
    return clone
