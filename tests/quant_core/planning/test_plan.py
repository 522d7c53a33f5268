"""A plan is decided from names, shapes and dtypes alone, and counts exactly."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from graphquant.quant_core import (
    VALID_METHODS,
    NothingToQuantizeError,
    PatternError,
    UnknownNameError,
    plan_component,
    quantize_component,
)
from graphquant.quant_core.methods import MEASURED
from graphquant.quant_core.presets import Preset

NAMES = [
    "img_in",
    *(
        f"blocks.{i}.{layer}"
        for i in range(2)
        for layer in ("norm1.linear", "attn", "normal_proj", "mlp.0", "mlp.2")
    ),
    "vace_blocks.0",
    "final_layer",
]
NORMS = ["blocks.0.norm1.linear", "blocks.1.norm1.linear"]


@pytest.fixture
def plan(transformer, cpu):
    """``plan(method="int8", hardware=cpu, **options)`` of the transformer on the meta device."""
    model = transformer.to("meta")

    def make(method="int8", hardware=cpu, **options):
        return plan_component(model, method, hardware=hardware, **options)

    return make


def names(layers):
    return [layer.name for layer in layers]


def reasons(plan):
    return {layer.name: layer.reason for layer in plan.layers}


def test_every_linear_is_planned_in_the_models_order_and_norms_are_kept(plan):
    made = plan()
    assert names(made.layers) == NAMES
    assert names(made.with_action("keep")) == NORMS
    assert names(made.quantized) == [name for name in NAMES if name not in NORMS]
    assert (made.method, made.runs_as, made.preset, made.warnings) == ("int8", "int8", None, ())


@pytest.mark.parametrize("method", [m for m in VALID_METHODS[1:] if m not in MEASURED])
def test_bytes_are_planned_to_the_byte(method, transformer, fp8_hardware):
    transformer = transformer.to(torch.bfloat16)
    made = plan_component(transformer, method, hardware=fp8_hardware)
    before = sum(
        module.weight.nbytes
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and name not in NORMS
    )
    assert sum(layer.bytes_before for layer in made.quantized) == before
    quantize_component(transformer, method, hardware=fp8_hardware)
    after = 0
    for layer in made.quantized:
        weight = transformer.get_submodule(layer.name).weight
        parts = (getattr(weight, name) for name in weight.__tensor_flatten__()[0])
        after += sum(part.nbytes for part in parts)
    assert sum(layer.bytes_after for layer in made.quantized) == after
    assert after / before < 0.53


def test_a_plan_is_frozen(plan):
    made = plan()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.method = "int4"
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.layers[0].action = "keep"
    assert made == plan()
    assert made != plan("int4")


@pytest.mark.parametrize("method", VALID_METHODS)
def test_a_plan_goes_through_json_unharmed(method, plan, fp8_hardware):
    made = plan(method, hardware=fp8_hardware, exclude="nowhere")
    values = json.loads(json.dumps(made.to_dict()))
    assert values["method"] == values["runs_as"] == method
    assert len(values["layers"]) == len(made.layers)
    for layer, planned in zip(values["layers"], made.layers, strict=True):
        assert layer["name"] == planned.name
        assert tuple(layer["shape"]) == planned.shape
        assert layer["format"] == (planned.format and str(planned.format))


def test_each_layer_tells_its_shape_dtype_and_format(plan):
    layer = plan("int4").layers[0]
    assert (layer.name, layer.kind, layer.shape, layer.dtype) == (
        "img_in", "Linear", (256, 64), "float32"
    )  # fmt: skip
    assert str(layer.format) == "int4 groups of 64"
    assert (layer.bytes_before, layer.bytes_after) == (65536, 256 * 32 + 256 * 4)


def test_method_none_plans_nothing(plan):
    made = plan("none")
    assert (made.method, made.layers, made.warnings) == ("none", (), ())


def test_an_alias_is_remembered_beside_what_it_means(plan):
    made = plan("int8wo")
    assert (made.requested, made.method) == ("int8wo", "int8")


def test_the_encoder_keeps_embeddings_and_head_by_whole_names(cpu):
    def linear():
        return nn.Linear(64, 64, device="meta")

    layers = ("embed_tokens", "embed_tokens_proj", "rotary_emb", "norm_q", "mlp", "lm_head")
    model = nn.ModuleDict({name: linear() for name in layers})
    made = plan_component(model, "int8", "encoder", hardware=cpu)
    assert names(made.quantized) == ["embed_tokens_proj", "mlp"]
    assert reasons(made)["lm_head"] == "encoder filter: lm_head"
    assert len(made.quantized) + len(made.with_action("keep")) == len(made.layers) == 6


def test_include_narrows_and_exclude_takes_away(plan):
    made = plan(include="blocks.0\nvace_blocks", exclude="mlp.0, *.normal_proj")
    assert names(made.quantized) == ["blocks.0.attn", "blocks.0.mlp.2", "vace_blocks.0"]
    assert reasons(made)["blocks.1.attn"] == "not included"
    assert reasons(made)["blocks.0.mlp.0"] == "excluded by mlp.0"
    assert made.warnings == ()


def test_an_exclude_pattern_that_means_nothing_is_a_warning_and_changes_nothing_else(plan):
    made = plan(exclude=["block", "attn"])
    assert made.warnings == ("Exclude pattern 'block' matches none of 13 layers.",)
    assert made.quantized == plan(exclude="attn").quantized


def test_an_include_pattern_that_means_nothing_is_an_error(plan):
    with pytest.raises(PatternError, match=r"^Include pattern 'block' matches none of 13 layers\."):
        plan(include=["attn", "block"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"exclude": "*"},
            r"^No layer is left to quantize: 13 of 13 are kept, 11 of them by \"excluded by \*\"\.",
        ),
        (
            {"include": "norm1"},
            r"^No layer is left to quantize: 13 of 13 are kept, 11 of them by \"not included\"\.",
        ),
        (
            {"preset": Preset("house", "a test", keep=("*",))},
            r"^No layer is left .* 11 of them by \"preset house keeps \*\"\. Loosen .*preset\.$",
        ),
    ],
)
def test_no_layer_left_is_an_error_that_names_the_filter_and_the_count(options, message, plan):
    with pytest.raises(NothingToQuantizeError, match=message):
        plan(**options)


def test_a_model_without_linears_is_an_error_that_says_so(cpu):
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.LayerNorm(4))
    with pytest.raises(NothingToQuantizeError, match=r"^The transformer has no layer that int8 "):
        plan_component(model, "int8", hardware=cpu)


def test_k_that_no_group_divides_becomes_int8_and_says_so(cpu):
    model = nn.Sequential(nn.Linear(48, 64), nn.Linear(96, 64), nn.Linear(130, 64)).to("meta")
    made = plan_component(model, "int4", hardware=cpu)
    formats = [str(layer.format) for layer in made.quantized]
    assert formats == ["int8 per-row", "int4 groups of 32", "int8 per-row"]
    assert reasons(made)["0"] == "INT8: no INT4 group size (128, 64, 32) divides K = 48"
    assert reasons(made)["2"] == "INT8: no INT4 group size (128, 64, 32) divides K = 130"


def test_a_layer_that_would_not_become_smaller_is_kept(cpu):
    model = nn.Sequential(nn.Linear(2, 64), nn.Linear(64, 64)).to("meta", torch.bfloat16)
    made = plan_component(model, "int8", hardware=cpu)
    assert names(made.quantized) == ["1"]
    assert reasons(made)["0"] == "int8 per-row would not be smaller"


def test_fp8_dynamic_runs_a_layer_out_of_sixteens_weight_only_and_says_so(plan, fp8_hardware):
    made = plan("fp8-dynamic", hardware=fp8_hardware)
    assert (made.runs_as, made.warnings) == ("fp8-dynamic", ())
    *usual, last = made.quantized
    assert {str(layer.format) for layer in usual} == {
        "float8_e4m3fn per-row, float8_e4m3fn activations"
    }
    assert str(last.format) == "float8_e4m3fn per-row"
    assert last.reason.startswith("weight-only: 24 x 256 is not in sixteens")


def test_fp8_dynamic_falls_back_where_fp8_is_not_multiplied_and_the_plan_says_so(plan):
    made = plan("fp8-dynamic")
    assert (made.method, made.runs_as) == ("fp8-dynamic", "fp8-weight-only")
    assert {str(layer.format) for layer in made.quantized} == {"float8_e4m3fn per-row"}
    (warning,) = made.warnings
    assert "fp8-dynamic needs FP8 matmuls" in warning and "CPU does not have" in warning
    assert "fp8-weight-only runs instead" in warning


@pytest.mark.parametrize(
    ("preset", "kept"),
    [
        (None, NORMS),
        ("generic", ["img_in", *NORMS, "vace_blocks.0", "final_layer"]),
        ("flux1", ["img_in", *NORMS, "final_layer"]),
        (Preset("mine", "a test", keep=("attn",)), [*NORMS, "blocks.0.attn", "blocks.1.attn"]),
        (Preset("only", "a test", keep=(), only=("blocks.*.attn",)), None),
    ],
    ids=["none", "generic", "by name", "keep", "only"],
)
def test_a_preset_keeps_what_it_lists_beside_the_components_own(preset, kept, plan):
    made = plan(preset=preset)
    if kept is None:
        assert names(made.quantized) == ["blocks.0.attn", "blocks.1.attn"]
    else:
        assert sorted(names(made.with_action("keep"))) == sorted(kept)
    assert made.preset == (preset.name if isinstance(preset, Preset) else preset)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "int9"}, "^Unknown method 'int9'. Did you mean int8"),
        ({"component_type": "encodr"}, "^Unknown component type 'encodr'. Did you mean encoder"),
        ({"granularity": "per-block"}, "^Unknown granularity 'per-block'. Did you mean per-"),
        ({"preset": "flux"}, "^Unknown preset 'flux'. Did you mean flux[12]"),
    ],
)
def test_an_unknown_name_is_an_error_that_names_the_nearest(options, message, plan):
    with pytest.raises(UnknownNameError, match=message):
        plan(**options)


@pytest.mark.parametrize("options", [{"component_type": "unet"}, {"granularity": "per-block"}])
def test_a_wrong_argument_is_an_error_for_method_none_too(options, plan):
    with pytest.raises(UnknownNameError):
        plan("none", **options)


def tied(*names, tie):
    model = nn.ModuleDict({name: nn.Linear(64, 64, bias=False, device="meta") for name in names})
    for name in tie[1:]:
        model[name].weight = model[tie[0]].weight
    return model


def test_tied_weights_are_planned_once_and_counted_once(cpu):
    model = tied("a", "b", "c", "d", tie="acd")
    made = plan_component(model, "int8", hardware=cpu)
    assert [layer.tied_to for layer in made.layers] == [None, None, "a", "a"]
    assert sum(layer.bytes_before for layer in made.quantized) == 2 * 64 * 64 * 4
    assert sum(layer.bytes_after for layer in made.quantized) == 2 * (64 * 64 + 4 * 64)


def test_a_weight_that_one_of_its_layers_keeps_is_kept_by_all_so_that_it_is_stored_once(cpu):
    made = plan_component(tied("a", "b", "c", "d", tie="abc"), "int8", hardware=cpu, exclude="b")
    assert [layer.action for layer in made.layers] == ["keep", "keep", "keep", "quantize"]
    assert [layer.tied_to for layer in made.layers] == [None, "a", "a", None]
    assert made.layers[2].reason == "its weight is also b's, which stays: both would be stored"
