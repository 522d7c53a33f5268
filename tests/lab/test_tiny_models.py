"""The tiny checkpoints are what ComfyUI takes them for, and feed a sampler real numbers."""

import pytest
import torch

from lab.tiny_models import FLUX, WAN, tiny_flux


def linears(patcher):
    modules = patcher.model.diffusion_model.modules()
    return [module for module in modules if isinstance(module, torch.nn.Linear)]


def test_comfyui_detects_the_flux_file_as_flux(flux_patcher):
    config = flux_patcher.model.model_config.unet_config
    assert type(flux_patcher.model).__name__ == "Flux"
    assert (config["hidden_size"], config["depth"], config["depth_single_blocks"]) == (256, 2, 4)
    assert config["context_in_dim"] == FLUX.context_width
    assert config["vec_in_dim"] == FLUX.pooled_width


def test_comfyui_detects_the_wan_file_as_wan21(wan_patcher):
    config = wan_patcher.model.model_config.unet_config
    assert type(wan_patcher.model).__name__ == "WAN21"
    assert (config["dim"], config["num_layers"], config["model_type"]) == (256, 2, "t2v")


def test_the_same_seed_writes_the_same_file_and_another_does_not(comfy, tmp_path):
    first, same, other = (
        tiny_flux(tmp_path / name, hidden=128, depth=1, singles=1, seed=seed).read_bytes()
        for name, seed in (("first", 3), ("same", 3), ("other", 4))
    )
    assert first == same
    assert first != other


@pytest.mark.parametrize(("fixture", "tiny"), [("flux_patcher", FLUX), ("wan_patcher", WAN)])
def test_sampling_repeats_bit_by_bit_and_depends_on_the_weights(fixture, tiny, request, sample):
    patcher = request.getfixturevalue(fixture)
    latent = sample(patcher)
    assert latent.shape == (1, *tiny.latent)
    assert latent.isfinite().all()
    assert 1 < latent.std() < 10
    assert torch.equal(sample(patcher), latent)
    assert not torch.equal(sample(patcher, seed=1), latent)
    layer = max(linears(patcher), key=lambda linear: linear.weight.numel())
    layer.weight.data.mul_(1.01)
    assert not torch.equal(sample(patcher), latent)


@pytest.mark.parametrize("fixture", ["flux_patcher", "wan_patcher"])
def test_every_linear_has_a_bias_that_matters(fixture, request):
    """A kernel that drops a bias must change the picture."""
    layers = linears(request.getfixturevalue(fixture))
    assert len(layers) > 20
    assert all(layer.bias is not None and layer.bias.abs().max() > 0.01 for layer in layers)
