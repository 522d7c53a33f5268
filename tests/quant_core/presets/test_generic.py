"""The generic rule, on trees made up to mislead it."""

from torch import nn

from graphquant.quant_core.planning.filters import LayerFilter
from graphquant.quant_core.presets import generic_preset


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


def test_a_component_named_model_is_not_modulation():
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
