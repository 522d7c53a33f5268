"""What a layer does to the latent, measured by a hook: what quantizing that layer alone does."""

import pytest
import torch

from lab.nodes.noise import conditioning
from lab.sampling import relative_l2
from lab.tiny_models import FLUX

pytestmark = pytest.mark.usefixtures("comfy")
LAYER = "double_blocks.0.img_attn.qkv"


@pytest.fixture
def effects_of(flux_patcher):
    """``effects_of(units)`` -> the effect of each of their layers, of one step."""
    from graphquant.nodes.bridge.measure.sampling import Sampling
    from graphquant.nodes.bridge.measure.sensing import measure_effects

    positive = conditioning(
        0, FLUX.context_width, FLUX.context_length, FLUX.pooled_width, FLUX.guidance
    )
    latent = {"samples": torch.zeros(1, *FLUX.latent)}
    sampling = Sampling(positive, None, latent, 1, 1.0, "euler", "simple")

    def measure(units):
        found = {}
        measure_effects(flux_patcher, sampling, 0, units, lambda unit, own: found.update(own))
        return found

    return measure


@pytest.fixture
def formats(flux_patcher):
    from graphquant.nodes.bridge.measure.sensing import layers_to_measure

    return layers_to_measure(flux_patcher)


def test_an_effect_is_the_change_of_the_latent_when_that_layer_alone_is_quantized(
    flux_patcher, effects_of, formats, sample
):
    from graphquant.nodes.bridge.measure.sensing import PROBE, units
    from graphquant.nodes.quantize_model import GQQuantizeModel

    effect = effects_of(units({LAYER: formats[LAYER]}, by_block=False))[LAYER]
    alone = GQQuantizeModel.execute(flux_patcher, PROBE, include=LAYER).result[0]
    expected = relative_l2(sample(alone, steps=1), sample(flux_patcher, steps=1))
    assert expected > 1e-4
    assert effect == pytest.approx(expected, rel=0.02)


def test_a_block_is_shared_out_among_its_layers_in_squares(effects_of, formats):
    from graphquant.nodes.bridge.measure.sensing import units

    block = {name: fmt for name, fmt in formats.items() if name.startswith("single_blocks.0.")}
    (whole,) = units(block, by_block=True)
    assert whole.name == "single_blocks.0" and len(block) == 3
    shared, alone = effects_of([whole]), effects_of(units(block, by_block=False))
    together, root = (sum(e**2 for e in each.values()) ** 0.5 for each in (shared, alone))
    assert together == pytest.approx(root, rel=0.4)
    assert len(set(shared.values())) == 3


def test_layers_outside_blocks_are_measured_alone():
    from graphquant.nodes.bridge.measure.sensing import units

    names = ("img_in", "time_in.0", "blocks.0.a", "blocks.0.b.1", "blocks.1.a")
    found = [unit.name for unit in units(dict.fromkeys(names), by_block=True)]
    assert found == ["img_in", "time_in.0", "blocks.0", "blocks.1"]


def test_what_the_preset_keeps_is_not_measured(formats):
    assert len(formats) > 20
    assert not any(name.startswith(("img_in", "final_layer", "time_in")) for name in formats)
