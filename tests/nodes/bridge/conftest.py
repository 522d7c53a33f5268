"""Quantizing, saving and loading models, for the tests of the bridge."""

import pytest
import torch

from graphquant.quant_core import plan_component


@pytest.fixture
def quantize(comfy):
    """``quantize(patcher, method="int8", granularity="per-row", **options)`` -> patcher."""
    from graphquant.nodes.bridge.model.quantize_patcher import quantize_patcher

    def run(patcher, method="int8", granularity="per-row", preset="generic", **options):
        plan = plan_component(
            patcher.model.diffusion_model,
            method,
            granularity=granularity,
            preset=preset,
            **options,
        )
        plans = {"diffusion_model.": plan}
        return quantize_patcher(patcher, plans, compute_dtype=torch.float32)[0]

    return run


@pytest.fixture
def save(comfy):
    """``save(patcher, path, **options)`` -> report."""
    from graphquant.nodes.bridge.saving.save_model import save_quantized_model

    return save_quantized_model


@pytest.fixture
def load(comfy):
    """``load(path)`` -> patcher, report."""
    from graphquant.nodes.bridge.loading.load_model import load_quantized_model

    return load_quantized_model


@pytest.fixture
def latent(sample):
    """``latent(patcher)``: one sampling step, which a wrong weight anywhere would change."""
    return lambda patcher: sample(patcher, steps=1)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "saved.safetensors"
