"""Which layers stay: the component's filter, then the preset, then include, then exclude."""

import pytest

from graphquant.quant_core.errors import PatternError
from graphquant.quant_core.planning.filters import LayerFilter, check_include, unmatched
from graphquant.quant_core.presets import Preset

PRESET = Preset("house", "a test", keep=("img_in", "*.modulation"), only=("blocks", "img_in"))


@pytest.mark.parametrize(
    ("component", "name", "kept_by"),
    [
        ("encoder", "model.embed_tokens", "embed_tokens"),
        ("encoder", "lm_head", "lm_head"),
        ("encoder", "model.rotary_emb.proj", "rotary_emb"),
        ("encoder", "model.layers.0.input_layernorm", "*norm"),
        ("encoder", "model.layers.0.q_norm.proj", "*norm.*"),
        ("encoder", "model.layers.0.mlp.up_proj", None),
        ("encoder", "model.embed_tokens_proj", None),
        ("encoder", "model.lm_head_2", None),
        ("transformer", "blocks.0.norm1.linear", "*norm[0-9]*"),
        ("transformer", "norm_out.linear", "*norm_*"),
        ("transformer", "blocks.0.img_norm.lin", "*norm.*"),
        ("transformer", "blocks.0.normal_proj", None),
        ("transformer", "blocks.0.normalize.lin", None),
        ("transformer", "model.embed_tokens", None),
        ("transformer", "lm_head", None),
        ("vae", "decoder.mid.norm1.linear", None),
        ("vae", "decoder.conv_in", None),
    ],
)
def test_each_component_keeps_its_own(component, name, kept_by):
    reason = LayerFilter(component).reason_to_keep(name)
    assert reason == (kept_by and f"{component} filter: {kept_by}")


def test_include_and_exclude_take_whole_components():
    keep = LayerFilter("transformer", include=("blocks",), exclude=("mod",))
    assert keep.reason_to_keep("blocks.0.attn") is None
    assert keep.reason_to_keep("vace_blocks.0.attn") == "not included"
    assert keep.reason_to_keep("blocks.0.mod") == "excluded by mod"
    assert keep.reason_to_keep("blocks.0.model") is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("blocks.0.norm.modulation", "transformer filter: *norm.*"),
        ("blocks.0.modulation", "preset house keeps *.modulation"),
        ("img_in", "preset house keeps img_in"),
        ("head.proj", "preset house quantizes other layers only"),
        ("blocks.1.attn", "not included"),
        ("blocks.0.attn", "excluded by attn"),
        ("blocks.0.mlp", None),
    ],
)
def test_the_first_reason_in_the_order_component_preset_include_exclude_counts(name, reason):
    keep = LayerFilter("transformer", PRESET, include=("blocks.0", "img_in"), exclude=("attn",))
    assert keep.reason_to_keep(name) == reason


def test_what_the_user_includes_does_not_override_a_preset():
    keep = LayerFilter("transformer", PRESET, include=("img_in",))
    assert keep.reason_to_keep("img_in") == "preset house keeps img_in"


def test_patterns_that_mean_nothing_are_found_in_order():
    assert unmatched(("a", "b", "*.c"), ["x.a", "y.c"]) == ["b"]
    assert unmatched((), ["x"]) == []
    assert unmatched(("a",), []) == ["a"]


@pytest.mark.parametrize(
    ("pattern", "remedy"),
    [
        ("double_bloks", "Did you mean 'double_blocks'?"),
        ("*doubel_blocks*", "Did you mean 'double_blocks'?"),
        ("double_blocks.0.img_atn", "Did you mean 'double_blocks.0.img_attn'?"),
        ("mlp", "Did you mean '*mlp*'? Without a * only whole parts of a name match."),
        (
            "transformer",
            "Name whole parts of a layer's name, as in 'double_blocks.0.img_attn.qkv', "
            "or use a glob.",
        ),
    ],
)
def test_an_include_pattern_that_means_nothing_is_an_error_that_tells_the_nearest(pattern, remedy):
    names = ["double_blocks.0.img_attn.qkv", "double_blocks.0.img_mlp.0"]
    check_include(("qkv", "*.0"), names)
    with pytest.raises(PatternError) as caught:
        check_include(("qkv", pattern), names)
    assert str(caught.value) == f"Include pattern {pattern!r} matches none of 2 layers. {remedy}"
