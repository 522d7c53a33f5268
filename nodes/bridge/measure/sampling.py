"""ComfyUI's own sampler, as KSampler calls it, for nodes that measure.

Tested by tests/nodes/test_quantization_report.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import comfy.model_management
import comfy.sample
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher


@dataclass(frozen=True)
class Sampling:
    """KSampler's inputs but for the MODEL, the seed and denoise, which is 1. negative: None where
    cfg is 1, which leaves it out, else a ValueError. latent: a LATENT."""

    positive: list
    negative: list | None
    latent: Mapping
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str

    def __post_init__(self):
        if self.negative is None and self.cfg != 1:
            raise ValueError(
                f"cfg is {self.cfg:g}, but negative is not connected. "
                "Connect it, or set cfg to 1, which leaves it out."
            )

    def run(self, patcher: ModelPatcher, seed: int, bar: comfy.utils.ProgressBar) -> torch.Tensor:
        """The latent at the end. Each step moves ``bar`` by one; cancelling raises."""
        image = comfy.sample.fix_empty_latent_channels(
            patcher,
            self.latent["samples"],
            self.latent.get("downscale_ratio_spacial"),
            self.latent.get("downscale_ratio_temporal"),
        )

        def on_step(*_) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update(1)

        return comfy.sample.sample(
            patcher,
            comfy.sample.prepare_noise(image, seed, self.latent.get("batch_index")),
            self.steps,
            self.cfg,
            self.sampler_name,
            self.scheduler,
            self.positive,
            self.positive if self.negative is None else self.negative,
            image,
            noise_mask=self.latent.get("noise_mask"),
            callback=on_step,
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )


def picture_of(latent: torch.Tensor) -> torch.Tensor:
    """``latent``; of one of picture and sound, which is nested, the picture's part."""
    return latent.unbind()[0] if latent.is_nested else latent
