"""The architecture of a ComfyUI model or text encoder, by name."""

from functools import cache
from importlib import import_module
from types import SimpleNamespace

import pytest

from graphquant.nodes.bridge.architecture import detected as architecture
from graphquant.nodes.bridge.architecture.detected import (
    architecture_name,
    encoder_preset_name,
    preset_name,
    sub_encoders,
)
from graphquant.quant_core.layers import supported_layers
from graphquant.quant_core.patterns import matches
from graphquant.quant_core.planning.filters import LayerFilter
from graphquant.quant_core.presets import ENCODER_PRESETS, PRESETS, generic_preset, get_preset
from lab.architectures import TREES, UNLISTED_TREES, base_model, text_encoder

pytestmark = pytest.mark.usefixtures("comfy")

# Of each CLIP: the preset of each transformer in it, and the share of its Linear weights that is
# quantized. T5 keeps wo, Qwen-VL and Gemma their vision towers, CLIP everything.
ENCODERS = {
    "sd15": {"clip_l": ("clip", 0)},
    "sdxl": {"clip_l": ("clip", 0), "clip_g": ("clip", 0)},
    "sd3": {"clip_l": ("clip", 0), "clip_g": ("clip", 0), "t5xxl": ("t5", 0.783)},
    "flux1": {"clip_l": ("clip", 0), "t5xxl": ("t5", 0.783)},
    "flux2_dev": {"mistral3_24b": ("llama", 1)},
    "flux2_klein": {"qwen3_4b": ("qwen", 1)},
    "wan": {"umt5xxl": ("t5", 0.783)},
    "qwen_image": {"qwen25_7b": ("qwen", 0.906)},
    "z_image": {"qwen3_4b": ("qwen", 1)},
    "krea2": {"qwen3vl_4b": ("qwen", 0.898)},
    "hunyuan_video": {"clip_l": ("clip", 0), "llama": ("llama", 1)},
    "hunyuan_image": {"qwen25_7b": ("qwen", 0.906), "byt5_small": ("t5", 0.708)},
    "hidream": {
        "clip_l": ("clip", 0),
        "clip_g": ("clip", 0),
        "t5xxl": ("t5", 0.783),
        "llama": ("llama", 1),
    },
    "lumina2": {"gemma2_2b": ("gemma", 1)},
    "ltx2": {"gemma3_12b": ("gemma", 0.963)},
    "gemma4": {"gemma4": ("gemma", 0.879)},
    "omnigen2": {"qwen25_3b": ("qwen", 1)},
    "ovis_image": {"qwen3_2b": ("qwen", 1)},
    "ernie_image": {"ministral3_3b": ("llama", 1)},
    "stable_audio_3": {"t5gemma": ("gemma", 1)},
    "qwen35": {"qwen35_2b": ("qwen35", 0.772)},
    "hunyuan_dit": {"hydit_clip": (None, 1), "mt5xl": ("t5", 0.783)},
    "newbie": {"gemma": ("gemma", 1), "jina": (None, 1)},
}


@cache
def transformers_of(name):
    """The transformers of a CLIP by the name of their part of it (``t5xxl``)."""
    found = sub_encoders(text_encoder(name))
    return {path.removesuffix(".transformer"): module for path, module in found.items()}


def linear_sizes(transformer):
    layers = supported_layers(transformer, "encoder")
    return {name: module.weight.numel() for name, _, module in layers}


@pytest.mark.parametrize("name", ENCODERS)
def test_each_encoder_of_a_clip_has_its_own_preset_and_coverage(name):
    found = {}
    for part, transformer in transformers_of(name).items():
        preset = encoder_preset_name(transformer)
        sizes = linear_sizes(transformer)
        chosen = LayerFilter("encoder", get_preset(preset) if preset else generic_preset(sizes))
        quantized = sum(size for n, size in sizes.items() if chosen.reason_to_keep(n) is None)
        share = pytest.approx(quantized / sum(sizes.values()), abs=0.0006)
        found[part] = (preset, share)
    assert found == ENCODERS[name]


@pytest.mark.parametrize("preset", ENCODER_PRESETS.values(), ids=ENCODER_PRESETS)
def test_each_pattern_of_an_encoder_preset_means_a_module_of_its_family(preset):
    modules = {
        path
        for name, presets in ENCODERS.items()
        for part, transformer in transformers_of(name).items()
        if presets[part][0] == preset.name
        for path, _ in transformer.named_modules()
    }
    assert modules
    assert [p for p in preset.keep if not any(matches(p, module) for module in modules)] == []


def test_t5_keeps_wo_of_every_layer_and_nothing_else():
    sizes = linear_sizes(transformers_of("flux1")["t5xxl"])
    chosen = LayerFilter("encoder", get_preset("t5"))
    kept = [name for name in sizes if chosen.reason_to_keep(name)]
    assert kept == [f"encoder.block.{i}.layer.1.DenseReluDense.wo" for i in range(24)]


def test_loaded_models_are_recognised(flux_patcher, wan_patcher):
    assert (preset_name(flux_patcher.model), preset_name(wan_patcher.model)) == ("flux1", "wan")


def test_a_pack_s_own_subclass_counts_as_the_model_it_derives_from():
    from comfy.supported_models import Flux2

    class Theirs(Flux2):
        pass

    model = SimpleNamespace(model_config=Theirs(TREES["flux2_dev"].config))
    assert architecture_name(model) == "flux2"


@pytest.mark.parametrize(
    ("tree", "name"),
    [
        ("mage_flow", "mage_flow"),
        ("hunyuan_dit", "hydit"),
        ("ace_step", "ace"),
        ("cascade_c", "stable_cascade_c"),
    ],
)
def test_a_model_without_preset_is_called_what_comfyui_calls_it(tree, name):
    model = base_model(tree)
    assert (architecture_name(model), preset_name(model)) == (name, None)


def test_unlisted_models_have_names_fit_for_a_configuration_section():
    names = [architecture_name(base_model(tree)) for tree in UNLISTED_TREES]
    assert len(set(names)) == len(names) - 1  # Kandinsky 5's video and image models are one
    assert all(name.replace("_", "").isalnum() and name == name.lower() for name in names)


def test_every_class_that_is_named_exists_in_comfyui_and_has_its_preset():
    import_module("comfy.sd")  # imports every text encoder there is
    from comfy import clip_model, supported_models, text_encoders

    assert all(hasattr(supported_models, name) for name in architecture._MODEL_CONFIGS)
    assert set(architecture._MODEL_CONFIGS.values()) <= set(PRESETS)
    families = [clip_model, *vars(text_encoders).values()]
    assert all(any(hasattr(m, name) for m in families) for name in architecture._ENCODERS)
    assert set(architecture._ENCODERS.values()) == set(ENCODER_PRESETS)
