"""Presets by name, and the generic rule on trees made up to mislead it."""

import pytest
from torch import nn

from graphquant.quant_core.planning.filters import LayerFilter
from graphquant.quant_core.presets import ENCODER_PRESETS, PRESETS, generic_preset, get_preset


def linear():
    return nn.Linear(8, 8, device="meta")


def group(**modules):
    return nn.ModuleDict(modules)


def quantized(model):
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    keep = LayerFilter("transformer", generic_preset(names))
    return {name for name in names if keep.reason_to_keep(name) is None}


def block():
    return group(
        attn=group(qkv=linear(), proj_in=linear(), proj_out=linear()),
        mlp=nn.Sequential(linear(), nn.GELU(), linear()),
        img_mod=nn.Sequential(nn.SiLU(), linear()),
        adaLN_proj=linear(),
        norm1=group(linear=linear()),
        time_pos_embed=linear(),
    )


def blocks(count):
    return nn.ModuleList(block() for _ in range(count))


def in_blocks(path, count):
    layers = ("attn.qkv", "attn.proj_in", "attn.proj_out", "mlp.0", "mlp.2")
    return {f"{path}.{i}.{layer}" for i in range(count) for layer in layers}


def test_a_preset_is_found_by_its_name_in_either_table():
    assert get_preset("flux1") is PRESETS["flux1"]
    assert get_preset("t5") is ENCODER_PRESETS["t5"]


def test_an_unknown_preset_is_an_error_that_names_the_nearest():
    with pytest.raises(ValueError, match=r"preset 'flux'.*Did you mean flux[12]"):
        get_preset("flux")


def test_names_are_snake_case_and_belong_to_one_table():
    names = [*PRESETS, *ENCODER_PRESETS]
    assert len(names) == len(set(names))
    assert all(name.isidentifier() and name == name.lower() for name in names)
    assert "generic" not in names


def test_every_preset_says_where_it_comes_from():
    assert all(p.title and p.source for p in (PRESETS | ENCODER_PRESETS).values())


def test_reasons_name_the_preset_and_the_pattern():
    reason = LayerFilter("transformer", get_preset("flux1")).reason_to_keep("final_layer.linear")
    assert "flux1" in reason and "final_layer" in reason


def test_the_generic_rule_quantizes_the_repeated_blocks_and_nothing_around_them():
    model = group(
        model_in=linear(),
        time_in=nn.Sequential(linear(), nn.SiLU(), linear()),
        blocks=blocks(6),
        vace_blocks=blocks(2),
        text_in=group(refiner=group(blocks=blocks(2))),
        captions=nn.ModuleList(group(linear=linear()) for _ in range(9)),
        final_layer=linear(),
    )
    assert quantized(model) == in_blocks("blocks", 6) | in_blocks("vace_blocks", 2)


def test_the_generic_rule_finds_blocks_below_a_wrapper_and_leaves_the_vision_tower():
    model = group(model=group(layers=blocks(4)), visual=group(blocks=blocks(3)), lm_head=linear())
    assert quantized(model) == in_blocks("model.layers", 4)


def test_the_generic_rule_is_not_misled_by_a_short_list_of_side_networks():
    model = group(adapters=blocks(2), transformer=group(layers=blocks(12)))
    assert in_blocks("transformer.layers", 12) <= quantized(model)


def test_a_component_named_model_is_no_modulation():
    model = group(a=group(model=group(blocks=blocks(2))))
    assert quantized(model) == in_blocks("a.model.blocks", 2)


def test_without_repeated_blocks_the_ends_of_the_model_stay():
    model = group(
        img_in=linear(),
        time_in=group(lin=linear()),
        timestep=linear(),
        attn=group(qkv=linear(), out=linear()),
        mlp=nn.Sequential(linear(), nn.GELU(), linear()),
        proj_out=linear(),
        head=linear(),
    )
    assert quantized(model) == {"attn.qkv", "attn.out", "mlp.0", "mlp.2"}


def test_the_generic_preset_of_no_layers_keeps_its_name():
    preset = generic_preset([])
    assert (preset.name, preset.only) == ("generic", ())
