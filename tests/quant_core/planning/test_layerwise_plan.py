"""Which layers layerwise casting takes: diffusers' classes, patterns and descent."""

import pytest
import torch
from torch import nn

from graphquant.quant_core import NothingToQuantizeError, PatternError, UnknownNameError
from graphquant.quant_core.planning.layerwise_plan import plan_layerwise, plan_whole


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.ModuleDict({"linear": nn.Linear(8, 8), "norm": nn.LayerNorm(8)})
        self.attn = nn.Linear(8, 8)
        self.normal_proj = nn.Linear(8, 8)
        self.proj_in = nn.Linear(8, 8)


@pytest.fixture
def model():
    return nn.ModuleDict(
        {
            "patch_embedding": nn.Conv2d(3, 8, 2),
            "proj_in": nn.Linear(8, 8),
            "blocks": nn.ModuleList([Block(), Block()]),
            "up": nn.ConvTranspose3d(8, 8, 2),
            "table": nn.Embedding(10, 8),
            "group": nn.GroupNorm(2, 8),
        }
    )


def names(plan):
    return [layer.name for layer in plan.quantized]


def kept(plan):
    return {layer.name: layer.reason for layer in plan.layers if layer.action == "keep"}


def test_the_default_patterns_skip_what_diffusers_skips(model):
    plan = plan_layerwise(model)
    inside = ["attn", "proj_in"]
    assert names(plan) == [f"blocks.{i}.{name}" for i in (0, 1) for name in inside] + [
        "up",
        "table",
    ]
    assert kept(plan)["patch_embedding"] == "skip pattern patch_embed"
    assert kept(plan)["proj_in"] == "skip pattern ^proj_in$"
    assert kept(plan)["blocks.0.norm1.linear"] == "skip pattern norm"
    assert kept(plan)["blocks.1.normal_proj"] == "skip pattern norm"


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(4, 4),
        nn.Embedding(4, 4),
        *(conv(4, 4, 1) for conv in (nn.Conv1d, nn.Conv2d, nn.Conv3d)),
        *(conv(4, 4, 1) for conv in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_every_class_is_cast_also_as_the_root(layer):
    (planned,) = plan_layerwise(layer).quantized
    assert planned.kind == type(layer).__name__
    assert planned.bytes_before == 4 * 16
    assert planned.bytes_after == 16 + 4


def test_normalizations_are_not_layers_of_a_plan(model):
    plan = plan_layerwise(model, skip_patterns=())
    assert len(plan.layers) == len(plan.quantized) == 12
    assert not any(la.kind in ("LayerNorm", "GroupNorm") for la in plan.layers)


@pytest.mark.parametrize("classes", ["Block", [Block], ["ModuleList"]])
def test_a_class_skips_everything_below_by_name_or_itself(model, classes):
    plan = plan_layerwise(model, skip_patterns=(), skip_classes=classes)
    assert not any(name.startswith("blocks") for name in names(plan))
    assert "skip class" in kept(plan)["blocks.0.attn"]


def test_a_base_class_counts(model):
    plan = plan_layerwise(model, skip_classes="_ConvNd")
    assert kept(plan)["up"] == "skip class _ConvNd"


def test_patterns_are_lines_of_a_text_and_keep_their_commas(model):
    plan = plan_layerwise(model, skip_patterns=" ^blocks \n\nt{1,2}able\n")
    assert names(plan) == ["patch_embedding", "proj_in", "up"]


def test_what_matches_nothing_is_a_warning_unless_it_is_a_default(model):
    plan = plan_layerwise(model, skip_patterns="pos_embed\nvace", skip_classes="Resampler")
    assert plan.warnings == (
        f"Skip pattern 'vace' matches none of {len(list(model.modules()))} modules.",
        f"Skip class 'Resampler' matches none of {len(list(model.modules()))} modules.",
    )


def test_a_pattern_hidden_below_a_skipped_module_still_counts_as_matched(model):
    assert plan_layerwise(model, skip_patterns="^blocks\nattn").warnings == ()


def test_a_shared_layer_is_planned_once_and_a_tied_weight_counted_once(model):
    model["again"] = model["up"]
    model["head"] = nn.Linear(8, 10, bias=False)
    model["head"].weight = model["table"].weight
    plan = plan_layerwise(model)
    assert names(plan).count("up") == 1
    assert "again" not in names(plan)
    head = next(layer for layer in plan.layers if layer.name == "head")
    assert (head.tied_to, head.bytes_after) == ("table", 0)


def test_a_weight_that_no_hook_could_replace_is_kept_and_said():
    attention = nn.MultiheadAttention(8, 2)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
    plan = plan_layerwise(nn.ModuleList([attention, normed, nn.Linear(8, 8)]))
    assert names(plan) == ["2"]
    assert "MultiheadAttention reads" in kept(plan)["0.out_proj"]
    assert "computed from others" in kept(plan)["1"]


def test_quantized_weights_are_left(model):
    model["proj_in"].weight = nn.Parameter(
        torch.zeros(8, 8).to(torch.float8_e5m2), requires_grad=False
    )
    plan = plan_layerwise(model, skip_patterns=())
    (left,) = plan.with_action("already quantized")
    assert (left.name, left.reason) == ("proj_in", "already quantized: float8_e5m2")


def test_planning_reads_no_values():
    with torch.device("meta"):
        plan = plan_layerwise(Block())
    assert names(plan) == ["attn"]


def test_the_whole_module_is_every_parameter_but_scalars():
    block = Block()
    block.gain = nn.Parameter(torch.ones(()))
    plan = plan_whole(block, "float8_e4m3fn", True)
    assert set(names(plan)) == {name for name, _ in block.named_parameters()} - {"gain"}
    assert kept(plan) == {"gain": "a scalar"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"storage_dtype": "float8_e8m0fnu"}, UnknownNameError, "Unknown storage dtype 'float8_e8"),
        (
            {"skip_patterns": "blocks.("},
            PatternError,
            r"Skip pattern 'blocks\.\(' is not a valid regular",
        ),
        ({"skip_patterns": "."}, NothingToQuantizeError, "12 of 12 are kept, 12 of them by"),
    ],
)
def test_refusals_name_the_value_and_the_remedy(model, options, error, message):
    with pytest.raises(error, match=message) as refusal:
        plan_layerwise(model, **options)
    assert str(refusal.value).endswith(".")
