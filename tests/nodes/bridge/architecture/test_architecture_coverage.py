"""What stays and what is quantized in every architecture, proven on ComfyUI's own module trees.

The trees have the released models' full sizes; on the meta device that costs nothing.
"""

import re
from collections import Counter
from functools import cache

import pytest

from graphquant.nodes.bridge.architecture.detected import (
    architecture_name,
    config_architecture,
    preset_name,
)
from graphquant.quant_core.layers import supported_layers
from graphquant.quant_core.patterns import matches
from graphquant.quant_core.planning.filters import LayerFilter
from graphquant.quant_core.presets import PRESETS, generic_preset, get_preset
from lab.architectures import TREES, UNLISTED_TREES, base_model
from lab.architectures.expected import EXPECTED

pytestmark = pytest.mark.usefixtures("comfy")

# Kept by a preset for its place alone (the first or last blocks), or (music_encoder) 0.01 % of all.
_BY_PLACE = ("layers.0", "layers.35", "blocks.0", "music_encoder")
_MODULATION = ("*mod*", "*ada[lL][nN]*")


@cache
def model_of(name):
    return base_model(name)


@cache
def linears(name):
    """Parameters in each Linear of a tree, by layer name."""
    layers = supported_layers(model_of(name).diffusion_model, "transformer")
    return {layer: module.weight.numel() for layer, _, module in layers}


def kept_layers(name, preset):
    layer_filter = LayerFilter("transformer", preset)
    return {layer for layer in linears(name) if layer_filter.reason_to_keep(layer)}


def share_quantized(name, kept):
    sizes = linears(name)
    return 1 - sum(sizes[layer] for layer in kept) / sum(sizes.values())


def in_words(layers, kept):
    """Kept layers in EXPECTED's terms: parts of the model that stay whole, then layers counted."""
    part = {layer: layer.partition(".")[0] for layer in layers}
    whole = set(part.values()) - {part[layer] for layer in layers if layer not in kept}
    single = Counter(
        re.sub(r"(?<=\.)\d+(?=\.|$)", "#", layer) for layer in kept if part[layer] not in whole
    )
    return whole | {f"{layer}:{count}" for layer, count in single.items()}


def preset_of(name):
    preset = (TREES | UNLISTED_TREES)[name].preset
    return get_preset(preset) if preset else generic_preset(linears(name))


@pytest.mark.parametrize("name", EXPECTED)
def test_exactly_the_expected_layers_stay_and_all_others_are_quantized(name):
    kept = kept_layers(name, preset_of(name))
    share, expected = EXPECTED[name]
    print(f"{name}: {share_quantized(name, kept):.2%} of the Linear weights quantized")
    assert in_words(linears(name), kept) == set(expected.split())
    assert share_quantized(name, kept) == pytest.approx(share, abs=0.0006)


def test_every_tree_has_an_expectation():
    assert list(EXPECTED) == [*TREES, *UNLISTED_TREES]


def test_every_diffusion_model_that_comfyui_knows_is_among_the_trees():
    from comfy.supported_models import models

    shown = {architecture_name(model_of(name)) for name in EXPECTED}
    others = {cls.__name__ for cls in models if config_architecture(cls) not in shown}
    detectors = {"RT_DETR_v4", "SAM3", "SAM31", "DepthAnything3"}
    # These are not made from a configuration alone: their classes read weights of a checkpoint.
    audio = {"StableAudio", "StableAudio3", "ACEStep15"}
    # Of ComfyUI 0.33, whose trees are not here yet: the generic rule is for them.
    newer = {"Trellis2", "MiniMaxMusic3"} & {cls.__name__ for cls in models}
    assert others == detectors | audio | newer


@pytest.mark.parametrize("name", EXPECTED)
def test_the_tree_has_the_size_and_the_preset_it_is_meant_to_have(name):
    model = model_of(name)
    tree = (TREES | UNLISTED_TREES)[name]
    size = sum(parameter.numel() for parameter in model.diffusion_model.parameters())
    assert size / 1e9 == pytest.approx(tree.billions, rel=0.015)
    assert preset_name(model) == tree.preset


@pytest.mark.parametrize("name", TREES)
def test_comfyui_recognises_a_checkpoint_of_the_tree_as_the_same_model(name):
    from comfy.model_detection import model_config_from_unet

    model = model_of(name)
    weights = model.diffusion_model.state_dict()
    weights |= {"positive_conditioning": None, "negative_conditioning": None}  # SeedVR2's, beside
    detected = model_config_from_unet(weights, "")
    assert type(detected) is type(model.model_config)


OFFICIAL = {"flux2_fp8mixed": "flux2", "ltx2_official": "ltx2"}


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_each_pattern_of_a_preset_means_a_module_of_its_family(preset):
    family = OFFICIAL.get(preset.name) or preset.name.removesuffix("_quality")
    models = [model_of(name) for name, tree in TREES.items() if tree.preset == family]
    modules = {path for model in models for path, _ in model.diffusion_model.named_modules()}
    patterns = preset.keep + preset.only
    assert patterns
    assert [p for p in patterns if not any(matches(p, module) for module in modules)] == []


def test_quality_presets_keep_modulation_at_the_price_they_name():
    flux = kept_layers("flux1_dev", get_preset("flux1_quality"))
    assert flux > kept_layers("flux1_dev", get_preset("flux1"))
    assert share_quantized("flux1_dev", flux) == pytest.approx(0.995 - 0.271, abs=0.001)
    qwen = kept_layers("qwen_image", get_preset("qwen_image_quality"))
    assert qwen > kept_layers("qwen_image", get_preset("qwen_image"))
    assert share_quantized("qwen_image", qwen) == pytest.approx(1 - 0.556, abs=0.001)


@pytest.mark.parametrize("name", TREES)
def test_the_generic_rule_keeps_what_the_preset_keeps_and_beyond_that_only_modulation(name):
    with_preset = kept_layers(name, preset_of(name))
    generic = kept_layers(name, generic_preset(linears(name)))
    print(
        f"{name}: preset {share_quantized(name, with_preset):.1%}, "
        f"generic {share_quantized(name, generic):.1%}"
    )
    bolder = {n for n in with_preset - generic if not any(matches(p, n) for p in _BY_PLACE)}
    shyer = {n for n in generic - with_preset if not any(matches(p, n) for p in _MODULATION)}
    assert (bolder, shyer) == (set(), set())
    assert share_quantized(name, generic) > 0.58
