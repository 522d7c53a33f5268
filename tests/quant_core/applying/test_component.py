"""quantize_component: all layers or none, exact counts, and a model that goes on being a model."""

import copy
import logging

import pytest
import torch
from torch import nn

from graphquant.quant_core import VALID_METHODS, NonFiniteWeightError, quantize_component
from graphquant.quant_core.applying import component as component_module
from graphquant.quant_core.detect import module_bytes, quantized_as
from graphquant.quant_core.methods import MEASURED
from lab.sampling import relative_l2

METHODS = [name for name in VALID_METHODS[1:] if name not in MEASURED]
# Relative L2 of one layer, by method; on a CPU fp8-dynamic runs weight-only. Through the
# transformer's depth of 4 it grows to between the half and 1.8 times as much.
LAYER_ERROR = {
    "fp8-dynamic": 0.0265,
    "fp8-weight-only": 0.0265,
    "int8": 0.0080,
    "int4": 0.0945,
    "int8-dynamic": 0.0109,
    "int4-dynamic": 0.0890,
    "llm.int8": 0.0120,
    "nf4": 0.0920,
    "fp4": 0.1219,
    "int2": 0.3330,
    "int3": 0.1725,
    "int5": 0.0431,
    "int6": 0.0214,
    "fp6": 0.0527,
    "fp8-block": 0.0265,
    "mxfp8": 0.0265,
    "nvfp4": 0.0956,  # of matrices as small as these
    "int8-convrot": 0.0120,
    "w4a8": 0.0717,
    "w6a8": 0.0219,
    "nf4-fine": 0.0762,
}
# Bytes of what is quantized, as a share of bfloat16; eight bits where nothing is said.
SHARE = {
    "int4": 0.29,
    "int4-dynamic": 0.29,
    "nf4": 0.29,
    "fp4": 0.29,
    "nvfp4": 0.31,
    "int2": 0.16,
    "int3": 0.22,
    "int5": 0.35,
    "int6": 0.41,
    "fp6": 0.39,
    "mxfp8": 0.53,
    "w4a8": 0.30,
    "w6a8": 0.43,
    "nf4-fine": 0.27,
}

every_method = pytest.mark.parametrize("method", METHODS)


def snapshot(model):
    return [(name, p, p.detach().clone()) for name, p in model.named_parameters()]


def assert_untouched(model, before):
    after = list(model.named_parameters())
    assert [name for name, _ in after] == [name for name, _, _ in before]
    for (_, new), (_, old, value) in zip(after, before, strict=True):
        assert new is old
        assert torch.equal(new.view(torch.uint8), value.view(torch.uint8))


def test_none_is_a_strict_identity(transformer, tokens):
    before = snapshot(transformer)
    result, stats = quantize_component(transformer, "none")
    assert result is transformer
    assert_untouched(transformer, before)
    counts = stats["quantized_layers"], stats["skipped_layers"], stats["total_layers"]
    assert counts == (0, 0, 0)
    assert (stats["method"], stats["quantized_bytes_after"]) == ("none", 0)
    assert stats["model_bytes_before"] == stats["model_bytes_after"] == module_bytes(transformer)


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_output_moves_as_much_as_the_method_may_and_no_less(
    method, dtype, transformer, tokens, mode
):
    exact = transformer(tokens)
    model = transformer.to(dtype)
    result, stats = quantize_component(model, method)
    assert result is model
    assert stats["quantized_layers"] == 11
    assert (stats["skipped_layers"], stats["total_layers"]) == (2, 13)
    error = relative_l2(model(tokens.to(dtype)), exact)
    assert 0.5 < error / LAYER_ERROR[method] < 1.8
    share = stats["quantized_bytes_after"] / stats["quantized_bytes_before"] * dtype.itemsize / 2
    assert share < SHARE.get(method, 0.52)


@every_method
def test_kept_layers_and_biases_are_the_same_objects_and_planned_ones_are_quantized(
    method, transformer
):
    before = {name: (p, p.detach().clone()) for name, p in transformer.named_parameters()}
    _, stats = quantize_component(transformer, method, exclude="attn")
    quantized = {f"{la['name']}.weight" for la in stats["layers"] if la["action"] == "quantize"}
    assert len(quantized) == stats["quantized_layers"] == 9
    for name, new in transformer.named_parameters():
        old, value = before[name]
        if name in quantized:
            assert quantized_as(new) in ("Int8Tensor", "Float8Tensor", "PackedTensor")
            assert not new.requires_grad
        else:
            assert new is old and torch.equal(new, value)


@pytest.mark.parametrize("granularity", ["per-row", "per-tensor"])
def test_granularity_reaches_the_weights(granularity, transformer):
    quantize_component(transformer, "int8", granularity=granularity)
    rows = 256 if granularity == "per-row" else 1
    assert transformer.blocks[0].attn.weight.scale.shape == (rows, 1)


@pytest.mark.parametrize("granularity", ["per-row", "per-tensor"])
def test_fp8_dynamic_on_a_cpu_computes_as_in_a_graph_which_is_weight_only(
    granularity, transformer, tokens, fp8_hardware
):
    model = transformer.to(torch.bfloat16)
    dynamic = copy.deepcopy(model)
    quantize_component(model, "fp8-weight-only", granularity=granularity)
    _, stats = quantize_component(
        dynamic, "fp8-dynamic", granularity=granularity, hardware=fp8_hardware
    )
    assert (stats["method"], stats["runs_as"]) == ("fp8-dynamic", "fp8-dynamic")
    assert stats["kernel"] == "dequantize + matmul"
    assert stats["layers"][-1]["reason"].startswith("weight-only: 24 x 256")
    assert torch.equal(dynamic(tokens.bfloat16()), model(tokens.bfloat16()))
    assert dynamic(torch.zeros(1, 4, 64, dtype=torch.bfloat16)).isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@every_method
def test_a_bad_weight_in_the_last_layer_leaves_the_whole_model_as_it_was(
    method, value, transformer, mode
):
    transformer.final_layer.weight.data[23, 255] = value
    before = snapshot(transformer)
    with pytest.raises(NonFiniteWeightError, match=r"^final_layer\.weight holds NaN or infinity\."):
        quantize_component(transformer, method)
    assert_untouched(transformer, before)


class Cancelled(BaseException):
    """ComfyUI's InterruptProcessingException is not a QuantizationError either."""


def test_a_cancel_before_the_last_layer_leaves_the_whole_model_as_it_was(transformer, mode):
    seen = []

    def on_layer(layer):
        seen.append(layer.name)
        if layer.name == "final_layer":
            raise Cancelled

    before = snapshot(transformer)
    with pytest.raises(Cancelled):
        quantize_component(transformer, "int8", on_layer=on_layer)
    assert len(seen) == 11
    assert_untouched(transformer, before)
    quantize_component(transformer, "int8")
    assert quantized_as(transformer.img_in.weight) == "Int8Tensor"


def test_a_torchao_that_fails_at_the_last_tensor_leaves_the_whole_model_as_it_was(
    transformer, monkeypatch
):
    real, made = component_module.to_torchao, []

    def failing(weight):
        made.append(weight)
        if len(made) == 11:
            raise ImportError("torchao does not fit this torch")
        return real(weight)

    monkeypatch.setattr(component_module, "to_torchao", failing)
    before = snapshot(transformer)
    with pytest.raises(ImportError, match="does not fit"):
        quantize_component(transformer, "int8")
    assert_untouched(transformer, before)


@every_method
def test_an_all_zero_layer_row_and_token_stay_zero_and_finite(method, transformer, tokens):
    transformer.vace_blocks[0].weight.zero_()
    transformer.blocks[0].attn.weight[17].zero_()
    tokens[:, 3] = 0
    exact = transformer(tokens)
    quantize_component(transformer, method)
    y = transformer(tokens)
    assert y.isfinite().all()
    assert 0.25 < relative_l2(y, exact) / LAYER_ERROR[method] < 1.8
    weight = transformer.vace_blocks[0].weight.dequantize()
    assert torch.equal(weight, torch.zeros_like(weight))
    row = transformer.blocks[0].attn.weight.dequantize()[17]
    assert torch.equal(row, torch.zeros_like(row))


def test_tied_weights_are_quantized_once_and_stay_tied(normal, cpu):
    model = nn.ModuleDict({name: nn.Linear(128, 128) for name in ("a", "b", "c")})
    model["c"].weight = model["a"].weight
    _, stats = quantize_component(model, "int8")
    assert model["c"].weight is model["a"].weight is not model["b"].weight
    assert [layer["tied_to"] for layer in stats["layers"]] == [None, None, "a"]
    assert stats["quantized_layers"] == 3
    assert stats["model_bytes_after"] == module_bytes(model) == 2 * (128 * 132) + 3 * 4 * 128


def test_subclasses_of_linear_are_quantized_and_keep_their_class(normal):
    class Scaled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = nn.Sequential(Scaled(128, 64))
    x = normal(3, 128, std=1.0)
    exact = model(x)
    quantize_component(model, "int8")
    assert type(model[0]) is Scaled
    assert 1e-3 < relative_l2(model(x), exact) < 0.01


def test_one_line_is_logged_and_the_whole_report_when_verbose(transformer, caplog):
    caplog.set_level(logging.DEBUG, logger="graphquant.quant_core")
    blank = copy.deepcopy(transformer)
    quantize_component(transformer, "int8")
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith("int8: 11 of 13 layers quantized, ")
    assert "\n" not in record.getMessage()
    caplog.clear()
    quantize_component(blank, "int8", verbose=True)
    (record,) = caplog.records
    assert record.getMessage().splitlines()[0].startswith("int8: 11 of 13 layers quantized, ")
    assert "- kept: 2 x transformer filter: *norm[0-9]*" in record.getMessage()


def test_nothing_is_printed(transformer, capfd):
    quantize_component(transformer, "int4")
    assert capfd.readouterr() == ("", "")


def test_the_arithmetic_may_run_on_a_device_of_ones_choice(transformer, tokens):
    other = copy.deepcopy(transformer)
    quantize_component(transformer, "int8")
    quantize_component(other, "int8", device="cpu")
    assert torch.equal(transformer(tokens), other(tokens))


@pytest.mark.gpu
@every_method
def test_on_a_gpu_every_method_stays_within_its_bound(method, transformer, tokens):
    exact = transformer(tokens)
    model = transformer.to("cuda", torch.bfloat16)
    quantize_component(model, method)
    error = relative_l2(model(tokens.to("cuda", torch.bfloat16)).cpu(), exact)
    assert 0.5 < error / LAYER_ERROR[method] < (2.7 if "dynamic" in method else 1.8)


@pytest.mark.parametrize("algorithm", ["search", "minmax", "hqq"])
def test_the_int4_algorithm_is_a_choice(algorithm):
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(256, 64, bias=False)
    layer.weight = nn.Parameter(torch.randn(64, 256, generator=generator))
    weight = layer.weight.detach().clone()
    model, _ = quantize_component(nn.Sequential(layer), "int4", int4_algorithm=algorithm)
    error = ((model[0].weight.dequantize() - weight).norm() / weight.norm()).item()
    bounds = {"search": (0.090, 0.097), "minmax": (0.097, 0.103), "hqq": (0.093, 0.099)}
    low, high = bounds[algorithm]
    assert low < error < high


def test_an_unknown_int4_algorithm_is_refused():
    with pytest.raises(ValueError, match="Unknown INT4 algorithm 'best'"):
        quantize_component(nn.Sequential(nn.Linear(128, 8)), "int4", int4_algorithm="best")
