"""A report counts what a plan did, for people in words and for programs in JSON."""

import json

import pytest
from torch import nn

from graphquant.quant_core import Report, plan_component, quantize_component


@pytest.fixture
def report(transformer, cpu):
    """``report(method="int8", **options)`` of the transformer."""

    def make(method="int8", hardware=cpu, **options):
        return Report(
            plan=plan_component(transformer, method, hardware=hardware, **options),
            kernel="dequantize + matmul",
            seconds=1.25,
            model_bytes_before=3 * 1024 * 1024,
            model_bytes_after=1024 * 1024 * 3 // 2,
            warnings=("a late warning",),
        )

    return make


def test_counts_add_up(report):
    values = report().to_dict()
    assert values["quantized_layers"] == 11
    assert values["skipped_layers"] == 2
    assert values["total_layers"] == 13
    elements = 256 * 64 + 2 * (2 * 256 * 256 + 2 * 512 * 256) + 256 * 256 + 24 * 256
    assert values["quantized_elements"] == elements
    assert values["quantized_bytes_before"] == 4 * elements
    rows = 256 + 2 * (256 + 256 + 512 + 256) + 256 + 24
    assert values["quantized_bytes_after"] == elements + 4 * rows


def test_the_ancestors_keys_are_there(report):
    values = report().to_dict()
    ancestor = {
        "quantized_layers", "skipped_layers", "total_layers", "method", "component_type"
    }  # fmt: skip
    assert ancestor <= set(values)
    assert (values["method"], values["component_type"]) == ("int8", "transformer")


@pytest.mark.parametrize("method", ["none", "int8", "int4", "fp8-dynamic"])
def test_json_holds_the_same_values(method, report):
    made = report(method)
    values = json.loads(made.to_json())
    assert values == json.loads(json.dumps(made.to_dict()))
    assert values["seconds"] == 1.25
    assert values["kernel"] == "dequantize + matmul"
    assert values["warnings"][-1] == "a late warning"


def test_tied_weights_are_counted_as_two_layers_and_one_weight(cpu):
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False))
    model[1].weight = model[0].weight
    _, stats = quantize_component(model, "int8", hardware=cpu)
    assert (stats["quantized_layers"], stats["quantized_elements"]) == (2, 64 * 64)
    assert stats["quantized_bytes_before"] == stats["model_bytes_before"] == 4 * 64 * 64
    assert stats["quantized_bytes_after"] == stats["model_bytes_after"] == 64 * 64 + 4 * 64


def test_the_summary_is_one_line_with_layers_bytes_time_and_kernel(report):
    assert report().summary() == (
        "int8: 11 of 13 layers quantized, 3.0 -> 1.5 MiB, 1.2 s; dequantize + matmul"
    )


def test_the_summary_names_what_ran_in_place_of_what_was_asked(report):
    assert report("fp8-dynamic").summary().startswith("fp8-dynamic as fp8-weight-only: 11 of 13")


def test_the_markdown_counts_formats_and_reasons(report):
    lines = report("int4", exclude="final_layer\nnowhere").to_markdown().splitlines()
    assert lines[0].startswith("int4: 10 of 13 layers quantized")
    assert lines[2:] == [
        "- warning: Exclude pattern 'nowhere' matches none of 13 layers.",
        "- warning: a late warning",
        "- preset: none",
        "- quantized: 9 x int4 groups of 128",
        "- quantized: 1 x int4 groups of 64",
        "- kept: 2 x transformer filter: *norm[0-9]*",
        "- kept: 1 x excluded by final_layer",
        "- no layer: 13 x bias, 0.01 MiB: a bias is added, not multiplied (blocks.0.mlp.0.bias)",
    ]


def test_the_markdown_says_which_layers_run_weight_only_and_what_was_left(
    report, transformer, fp8_hardware
):
    quantize_component(transformer.vace_blocks, "int8", hardware=fp8_hardware)
    lines = report("fp8-dynamic", hardware=fp8_hardware).to_markdown().splitlines()
    assert "- quantized: 9 x float8_e4m3fn per-row, float8_e4m3fn activations" in lines
    (weight_only,) = (line for line in lines if "weight-only" in line)
    assert "1 x float8_e4m3fn per-row (weight-only: 24 x 256 is not in sixteens" in weight_only
    assert "- left: 1 x already quantized: Int8Tensor" in lines
