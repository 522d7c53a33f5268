"""ComfyUI's Train LoRA node on quantized models, which trains on an independent copy of them."""

import pytest
import torch

from lab.nodes.noise import conditioning
from lab.tiny_models import FLUX


@pytest.fixture
def train(comfy):
    """``train(patcher, algorithm, bypass)`` -> (LoRA, losses) after 2 steps."""
    from comfy_extras.nodes_train import TrainLoraNode

    def run(patcher, algorithm="LoRA", bypass=True):
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(1, FLUX.latent[0], 4, 4, generator=generator)
        seen = conditioning(
            0, FLUX.context_width, FLUX.context_length, FLUX.pooled_width, FLUX.guidance
        )
        options = {
            "model": patcher,
            "batch_size": 1,
            "steps": 2,
            "grad_accumulation_steps": 1,
            "learning_rate": 1e-2,
            "rank": 4,
            "optimizer": "AdamW",
            "loss_function": "MSE",
            "seed": 0,
            "training_dtype": "none",
            "lora_dtype": "fp32",
            "quantized_backward": False,
            "algorithm": algorithm,
            "gradient_checkpointing": True,
            "checkpoint_depth": 1,
            "offloading": False,
            "existing_lora": "[None]",
            "bucket_mode": False,
            "bypass_mode": bypass,
        }
        found = TrainLoraNode.execute(
            latents=[{"samples": latents}],
            positive=[seen],
            **{name: [value] for name, value in options.items()},
        )
        return found[0], found[1]["loss"]

    return run


METHODS = ["int8", "fp8-weight-only", "fp8-dynamic", "int4", "nf4", "int8-convrot"]


# ComfyUI's LoHa can't be bypassed, on any model.
@pytest.mark.parametrize(
    "algorithm, bypass", [("LoRA", True), ("LoHa", False), ("LoKr", True), ("OFT", True)]
)
def test_every_adapter_trains_beside_quantized_weights(
    flux_patcher, quantize, train, latent, algorithm, bypass
):
    quantized = quantize(flux_patcher)
    before = latent(quantized)
    trained, losses = train(quantized, algorithm, bypass)
    assert all(torch.isfinite(torch.tensor(losses)))
    assert any(part.abs().max() > 0 for part in trained.values())
    assert torch.equal(latent(quantized), before)


@pytest.mark.parametrize("bypass", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_as_the_plain_model_does(flux_patcher, quantize, train, method, bypass):
    _, plain = train(flux_patcher, bypass=bypass)
    _, losses = train(quantize(flux_patcher, method), bypass=bypass)
    assert losses[-1] == pytest.approx(plain[-1], rel=0.1)


def test_an_independent_copy_shares_no_storage(flux_patcher, quantize):
    quantized = quantize(flux_patcher)
    copied = quantized.clone(force_deepcopy=True)
    ours, theirs = (
        {
            part.data_ptr(): name
            for named in (model.named_parameters(), model.named_buffers())
            for name, part in named
            if part.numel()
        }
        for model in (quantized.model, copied.model)
    )
    assert [ours[place] for place in ours.keys() & theirs.keys()] == []
    with torch.inference_mode(False):
        trained = quantized.clone(force_deepcopy=True)
        assert not any(part.is_inference() for part in trained.model.parameters())
