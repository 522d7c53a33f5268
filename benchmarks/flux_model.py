"""A transformer of FLUX.1's architecture with seeded random weights, loaded by ComfyUI itself."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from lab.tiny_models import TinyModel, flux_module

from .measuring import about, wait_for


@dataclass(frozen=True)
class Size:
    """hidden: a multiple of 128. steps: of one timed sampling."""

    hidden: int
    double: int
    single: int
    inputs: TinyModel
    steps: int


# FLUX.1-dev at 1024 x 1024: 11.9e9 weights, 4096 tokens of the image and 512 of the text.
FULL = Size(3072, 19, 38, TinyModel("", (16, 128, 128), 4096, 512, 768), steps=4)
# What a CPU does in seconds: 256 tokens of the image.
SMALL = Size(512, 1, 2, TinyModel("", (16, 32, 32), 256, 32, 64), steps=2)


def size_for(device: torch.device) -> Size:
    return SMALL if device.type == "cpu" else FULL


def load_flux(size: Size, device: torch.device):
    """A ModelPatcher in bfloat16. The weights are drawn on ``device`` and kept in memory."""
    import comfy.sd

    shapes = {"dtype": torch.bfloat16, "device": "meta", "operations": torch.nn}
    module = flux_module(size.inputs, size.hidden, size.double, size.single, **shapes)
    generator = torch.Generator(device).manual_seed(0)
    state = {name: _draw(p.shape, device, generator) for name, p in module.state_dict().items()}
    return comfy.sd.load_diffusion_model_state_dict(state, model_options={"dtype": torch.bfloat16})


def _draw(shape: torch.Size, device: torch.device, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16)
    if len(shape) < 2:
        return noise.mul_(0.02).add_(1).cpu()
    return noise.mul_(0.9 / math.sqrt(math.prod(shape[1:]))).cpu()


def quantized(patcher, method: str):
    """What the node gives for ``method``, and for "layerwise" Layerwise Cast."""
    from graphquant.nodes.layerwise_fp8_cast import GQLayerwiseFP8Cast
    from graphquant.nodes.quantize_model import GQQuantizeModel

    if method == "layerwise":
        return GQLayerwiseFP8Cast.execute(patcher, "float8_e4m3fn")[0]
    return GQQuantizeModel.execute(model=patcher, method=method)[0]


def compiled(patcher):
    from comfy_extras.nodes_torch_compile import TorchCompileModel

    return TorchCompileModel.execute(patcher, "inductor")[0]


def title(results: dict) -> str:
    """What ran, for the head of a table."""
    double, single = results["blocks"]
    return (
        f"FLUX.1 architecture, hidden size {results['hidden']}, {double} + {single} blocks; "
        f"medians of {results['repeats']}. {about(results['hardware'])}."
    )


def step_seconds(patcher, size: Size, device: torch.device) -> float:
    """Of one sampling step, from the second on: the first loads and compiles."""
    import comfy.sample

    from lab.nodes.noise import conditioning

    inputs = size.inputs
    latent = torch.zeros(1, *inputs.latent)
    shapes = (inputs.context_width, inputs.context_length, inputs.pooled_width)
    positive = conditioning(0, *shapes, inputs.guidance)
    moments: list[float] = []

    def note(*_) -> None:
        wait_for(device)
        moments.append(time.perf_counter())

    comfy.sample.sample(
        patcher,
        comfy.sample.prepare_noise(latent, 0),
        size.steps + 1,
        1.0,
        "euler",
        "simple",
        positive,
        positive,
        latent,
        callback=note,
        disable_pbar=True,
        seed=0,
    )
    return (moments[-1] - moments[0]) / (len(moments) - 1)
