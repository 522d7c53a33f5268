"""Quantize Model, run as a class on the real ComfyUI, without a server."""

import logging

import pytest
import torch

from graphquant.quant_core import METHODS

pytestmark = pytest.mark.usefixtures("comfy")

# method: (relative L2 of the latent after 4 steps, bytes of a quantized Linear against bf16)
BOUNDS = {
    "fp8-dynamic": (0.02, 0.51),
    "fp8-weight-only": (0.02, 0.51),
    "int8": (0.02, 0.51),
    "int8-dynamic": (0.03, 0.51),
    "int4": (0.10, 0.29),
}


@pytest.fixture
def execute():
    from graphquant.nodes.quantize_model import GQQuantizeModel

    return lambda model, method, **options: GQQuantizeModel.execute(
        model=model, method=method, **options
    )


def report_of(output):
    return output.ui["graphquant"][0]


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("method", BOUNDS)
def test_every_method_is_within_its_bounds_and_not_the_original(
    flux_patcher, sample, execute, method
):
    reference = sample(flux_patcher)
    output = execute(flux_patcher, method)
    error = relative(sample(output[0]), reference)
    report = report_of(output)
    bound, share = BOUNDS[method]
    assert 1e-4 < error <= bound
    assert report["quantized_bytes_after"] / (2 * report["quantized_elements"]) <= share
    assert report["quantized_layers"] + report["skipped_layers"] == report["total_layers"] == 42
    assert torch.equal(sample(flux_patcher), reference)


def test_wan_is_quantized_by_its_own_preset(wan_patcher, sample, execute):
    reference = sample(wan_patcher)
    output = execute(wan_patcher, "int8")
    assert report_of(output)["preset"] == "wan"
    kept = {la["name"] for la in report_of(output)["layers"] if la["action"] == "keep"}
    assert {"text_embedding.0", "time_embedding.0", "time_projection.1", "head.head"} <= kept
    assert 1e-4 < relative(sample(output[0]), reference) <= 0.02


def test_none_passes_the_same_object_through(flux_patcher, execute):
    output = execute(flux_patcher, "none")
    assert output[0] is flux_patcher
    assert report_of(output)["quantized_layers"] == 0


def test_auto_says_what_it_chose_and_why(flux_patcher, execute):
    output = execute(flux_patcher, "auto")
    assert report_of(output)["method"] == "int8"
    assert "- note: auto chose int8: CPU has no fast 8-bit matmul" in output[1]


def test_what_auto_chose_is_a_note_and_no_warning(flux_patcher, execute):
    report = report_of(execute(flux_patcher, "auto"))
    assert (len(report["notes"]), report["warnings"]) == (1, [])


def test_fp8_dynamic_on_a_cpu_runs_by_a_named_fallback(flux_patcher, execute):
    report = report_of(execute(flux_patcher, "fp8-dynamic"))
    assert (report["method"], report["runs_as"]) == ("fp8-dynamic", "fp8-weight-only")
    assert any("fp8-weight-only runs instead" in text for text in report["warnings"])


def test_the_compile_mode_brings_its_warning(flux_patcher, execute):
    warned = execute(flux_patcher, "fp8-dynamic", compile_mode="reduce-overhead")[1]
    assert "compile mode reduce-overhead" in warned
    assert "compile mode" not in execute(flux_patcher, "int8", compile_mode="reduce-overhead")[1]


def test_a_model_that_is_quantized_already_comes_back_itself(flux_patcher, execute):
    once = execute(flux_patcher, "int8")[0]
    output = execute(once, "int4")
    assert output[0] is once
    assert report_of(output)["method"] == "already_quantized"
    assert output[1].startswith("already_quantized: 0 of 42 layers quantized")
    assert report_of(output)["warnings"][0].startswith("Nothing was done: what went in is quantiz")


def test_one_info_line_a_quantize(flux_patcher, execute, caplog):
    with caplog.at_level(logging.INFO, logger="graphquant"):
        execute(flux_patcher, "int8")
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("graphquant")]
    assert len(lines) == 1
    assert lines[0].startswith("int8: 32 of 42 layers quantized")


@pytest.mark.parametrize(
    ("options", "first_line"),
    [
        ({"method": "int9"}, "Unknown method 'int9'. Did you mean int8"),
        ({"method": "int8", "include": "no_such_block"}, "Include pattern 'no_such_block' matches"),
        ({"method": "int8", "exclude": "*"}, "No layer is left to quantize: 42 of 42 are kept"),
        ({"method": "int8", "preset": "flux9"}, "Unknown preset 'flux9'. Did you mean flux"),
        ({"method": "int8", "granularity": "row"}, "Unknown granularity 'row'."),
        ({"method": "int8", "compute_device": "gpu"}, "compute_device is gpu, but ComfyUI runs"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input_is_refused_in_the_first_line(flux_patcher, execute, options, first_line):
    if torch.cuda.is_available() and "compute_device" in options:
        pytest.skip("a GPU is there to compute on")
    with pytest.raises(ValueError) as error:
        execute(flux_patcher, **options)
    assert str(error.value).splitlines()[0].startswith(first_line)


def test_an_exclude_pattern_that_matches_nothing_is_a_warning(flux_patcher, execute):
    output = execute(flux_patcher, "int8", exclude="*.no_such_layer")
    assert "Exclude pattern '*.no_such_layer' matches none of 42 layers" in output[1]


def test_nan_names_its_layer_and_nothing_is_changed(flux_patcher, sample, execute):
    layer = flux_patcher.model.diffusion_model.single_blocks[3].linear1
    good = layer.weight.data[5, 7].item()
    layer.weight.data[5, 7] = float("nan")
    with pytest.raises(ValueError, match=r"single_blocks\.3\.linear1\.weight holds NaN"):
        execute(flux_patcher, "int8")
    layer.weight.data[5, 7] = good
    assert torch.isfinite(sample(flux_patcher)).all()


@pytest.mark.parametrize("method", BOUNDS)
def test_an_all_zero_row_stays_zero(flux_patcher, sample, execute, method):
    flux_patcher.model.diffusion_model.single_blocks[3].linear1.weight.data[5] = 0
    quantized = execute(flux_patcher, method)[0]
    weight = quantized.model.diffusion_model.single_blocks[3].linear1.weight.dequantize()
    assert weight[5].abs().max() == 0
    assert torch.isfinite(sample(quantized)).all()


def test_a_layer_whose_k_no_int4_group_divides_becomes_int8_and_says_so(flux_patcher, execute):
    output = execute(flux_patcher, "int4", preset="none")
    layers = {layer["name"]: layer for layer in report_of(output)["layers"]}
    assert layers["img_in"]["shape"][1] == 64
    assert layers["img_in"]["format"] == "int4 groups of 64"
    narrow = torch.nn.Linear(40, 64)
    flux_patcher.model.diffusion_model.narrow = narrow
    report = report_of(execute(flux_patcher, "int4"))
    layer = next(layer for layer in report["layers"] if layer["name"] == "narrow")
    assert layer["format"] == "int8 per-row"
    assert layer["reason"] == "INT8: no INT4 group size (128, 64, 32) divides K = 40"


def test_every_input_but_two_is_optional_and_every_one_explained(comfy):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    schema = GQQuantizeModel.define_schema()
    ids = [socket.id for socket in schema.inputs]
    assert ids[:9] == [
        "model",
        "method",
        "granularity",
        "preset",
        "include",
        "exclude",
        "compute_device",
        "compile_mode",
        "cache",
    ]
    assert [socket.id for socket in schema.inputs if not socket.optional] == ["model", "method"]
    assert all(len(socket.tooltip) > 20 for socket in schema.inputs)
    common = ["int8", "fp8-dynamic", "fp8-weight-only", "int8-convrot", "nf4-fine", "int4"]
    options = schema.inputs[1].options
    assert options[:7] == ["auto", *common]
    assert sorted(options[1:-1]) == sorted(METHODS)
