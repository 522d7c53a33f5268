"""Layerwise casting of plain modules: FP8 between calls, the compute dtype during them."""

import copy

import pytest
import torch
from torch import nn

from graphquant.quant_core import (
    CastingError,
    UnknownNameError,
    apply_layerwise_casting,
    remove_layerwise_casting,
)
from graphquant.quant_core.detect import module_bytes


class Model(nn.Module):
    """Every kind of layer, a norm, and an embedding tied to the last Linear."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 64)
        self.linear = nn.Linear(64, 64)
        self.norm = nn.LayerNorm(64)
        self.conv = nn.Conv1d(64, 32, 3)
        self.up = nn.ConvTranspose1d(32, 64, 3)
        self.head = nn.Linear(64, 50, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        x = self.norm(self.linear(self.table(ids)))
        return self.head(self.up(self.conv(x.mT)).mT)


CAST = ("table", "linear", "conv", "up", "head")


@pytest.fixture
def ids():
    return torch.arange(20).view(2, 10)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def snapshot(model):
    return {name: part.detach().clone() for name, part in model.state_dict().items()}


def test_weights_wait_in_fp8_and_are_computed_in_the_other_dtype(model, ids):
    reference = model(ids)
    seen = {}
    apply_layerwise_casting(model, compute_dtype=torch.float32)
    model.linear.register_forward_hook(
        lambda layer, *_: seen.update(dtype=layer.weight.dtype), prepend=True
    )
    output = model(ids)
    assert seen == {"dtype": torch.float32}
    assert {model.get_submodule(name).weight.dtype for name in CAST} == {torch.float8_e4m3fn}
    assert 0.01 < relative(output, reference) < 0.08


@pytest.mark.parametrize("storage", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("compute", [torch.bfloat16, torch.float16, torch.float32])
def test_every_pair_of_dtypes_computes_what_the_dequantized_module_does(
    model, ids, storage, compute
):
    model.to(compute)
    apply_layerwise_casting(model, storage)
    output = model(ids)
    remove_layerwise_casting(model)
    assert output.dtype == compute
    assert torch.equal(output, model(ids))


def test_norms_and_biases_are_untouched_bit_for_bit(model, ids):
    before = snapshot(model)
    apply_layerwise_casting(model)
    model(ids)
    after = model.state_dict()
    untouched = ["norm.weight", "norm.bias", "linear.bias", "conv.bias", "up.bias"]
    assert all(torch.equal(after[name], before[name]) for name in untouched)


def test_footprints_are_ordered_as_the_dtypes_say(model):
    float32 = module_bytes(model)
    fp8_float32, fp8_bfloat16 = copy.deepcopy(model), copy.deepcopy(model).bfloat16()
    apply_layerwise_casting(fp8_float32)
    apply_layerwise_casting(fp8_bfloat16)
    assert module_bytes(fp8_bfloat16) < module_bytes(fp8_float32) < float32
    weights = sum(p.numel() for name, p in model.named_parameters() if p.dim() > 1)
    others = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    scales = 4 * 4  # the tied pair has one
    assert module_bytes(fp8_bfloat16) == weights + 2 * others + scales
    assert module_bytes(fp8_float32) == weights + 4 * others + scales


def test_a_small_weight_survives_scaled_and_not_unscaled(ids):
    torch.manual_seed(0)
    layer = nn.Linear(512, 512, bias=False)
    layer.weight.data.normal_(0, 0.002)
    plain, x = copy.deepcopy(layer), torch.randn(64, 512)
    apply_layerwise_casting(plain, scaled=False)
    apply_layerwise_casting(scaled := copy.deepcopy(layer))
    assert plain.weight_scale == 1
    assert relative(plain(x), layer(x)) == pytest.approx(0.28, abs=0.01)
    assert relative(scaled(x), layer(x)) == pytest.approx(0.027, abs=0.001)


def test_undone_it_computes_the_same_in_plain_parameters(model, ids):
    state = {name: (p.dtype, p.requires_grad) for name, p in model.named_parameters()}
    apply_layerwise_casting(model)
    cast = model(ids)
    remove_layerwise_casting(model)
    assert torch.equal(model(ids), cast)
    assert {n: (p.dtype, p.requires_grad) for n, p in model.named_parameters()} == state
    assert model.head.weight is model.table.weight
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any("scale" in name for name in model.state_dict())


@pytest.mark.parametrize("scaled", [True, False])
def test_undone_it_is_bit_exact_where_fp8_holds_the_values(model, scaled):
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float8_e4m3fn).float()
    before = snapshot(model)
    apply_layerwise_casting(model, scaled=scaled)
    remove_layerwise_casting(model)
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())


def test_a_second_cast_after_an_undo_changes_nothing_more(model):
    apply_layerwise_casting(model)
    first = snapshot(model)
    remove_layerwise_casting(model)
    apply_layerwise_casting(model)
    assert all(torch.equal(p.float(), first[n].float()) for n, p in model.state_dict().items())


@pytest.mark.parametrize("calls", [1, 10])
def test_the_stored_tensors_are_the_same_objects_after_any_calls(model, ids, calls):
    apply_layerwise_casting(model)
    before = dict(model.named_parameters())
    for _ in range(calls):
        model(ids)
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def test_an_exception_in_forward_restores_storage(model, ids):
    apply_layerwise_casting(model)
    output = model(ids)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        model.linear(torch.zeros(3, 7))
    assert model.linear.weight.dtype == torch.float8_e4m3fn
    assert torch.equal(model(ids), output)


def test_an_interrupted_forward_is_healed_by_the_next_call(model, ids):
    apply_layerwise_casting(model)
    output = model(ids)

    def interrupt(*_):
        raise KeyboardInterrupt

    handle = model.linear.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(ids)
    handle.remove()
    assert torch.equal(model(ids), output)
    assert model.linear.weight.dtype == torch.float8_e4m3fn


def test_applying_twice_is_refused_with_the_remedy(model):
    apply_layerwise_casting(model)
    with pytest.raises(CastingError, match=r"applied already\. Call remove_layerwise_casting"):
        apply_layerwise_casting(model)


def test_removing_nothing_is_refused(model):
    with pytest.raises(CastingError, match="no layerwise casting to remove"):
        remove_layerwise_casting(model)


def test_both_skips_none_cast_the_whole_module_norms_too(model, ids):
    reference = model(ids)
    seen = {}
    model.norm.register_forward_hook(lambda layer, *_: seen.update(dtype=layer.weight.dtype))
    report = apply_layerwise_casting(
        model, compute_dtype=torch.bfloat16, skip_patterns=None, skip_classes=None
    )
    assert report.quantized_layers == len(list(model.parameters()))
    assert {p.dtype for p in model.parameters()} == {torch.float8_e4m3fn}
    output = model(ids)
    assert seen == {"dtype": torch.bfloat16}
    assert output.dtype == torch.bfloat16
    assert 0.01 < relative(output, reference) < 0.1
    assert {p.dtype for p in model.parameters()} == {torch.float8_e4m3fn}
    remove_layerwise_casting(model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.head.weight is model.table.weight


def test_a_copy_is_cast_by_itself(model, ids):
    apply_layerwise_casting(model)
    output = model(ids)
    twin = copy.deepcopy(model)
    remove_layerwise_casting(model)
    assert twin.linear.weight.dtype == torch.float8_e4m3fn
    assert torch.equal(twin(ids), output)


def test_a_state_dict_carries_the_scales(model, ids):
    apply_layerwise_casting(model)
    torch.manual_seed(1)
    other = Model()
    apply_layerwise_casting(other)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(ids), model(ids))


def test_casting_the_module_to_another_dtype_keeps_its_values(model, ids):
    apply_layerwise_casting(model)
    output = model(ids)
    model.bfloat16()  # codes and power-of-two scales are exact in it
    remove_layerwise_casting(model)
    assert relative(model.float()(ids), output) < 0.01


def test_gradients_pass_through_to_the_input(model):
    apply_layerwise_casting(model)
    x = torch.randn(3, 64, requires_grad=True)
    model.linear(x).sum().backward()
    remove_layerwise_casting(model)
    torch.testing.assert_close(x.grad, model.linear.weight.sum(0).expand(3, -1))


def test_it_works_inside_inference_mode_and_outlives_it(model, ids):
    with torch.inference_mode():
        apply_layerwise_casting(model)
        inside = model(ids)
    assert not any(parameter.is_inference() for parameter in model.parameters())
    assert torch.equal(model(ids), inside)


def test_torch_compile_sees_no_graph_break(model, ids):
    apply_layerwise_casting(model)
    torch._dynamo.reset()
    explained = torch._dynamo.explain(model)(ids)
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)


@pytest.mark.parametrize("scaled", [True, False])
def test_the_report_counts_the_bytes(model, scaled):
    before = module_bytes(model)
    report = apply_layerwise_casting(model, scaled=scaled)
    assert (report.quantized_layers, report.total_layers) == (5, 5)
    assert (report.model_bytes_before, report.model_bytes_after) == (before, module_bytes(model))
    saved = report.quantized_bytes_before - report.quantized_bytes_after
    assert report.model_bytes_before - saved == report.model_bytes_after
    assert report.plan.method == "layerwise-fp8"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"storage_dtype": torch.int8}, "storage dtype 'int8'"),
        ({"compute_dtype": torch.float64}, "compute dtype 'float64'"),
    ],
)
def test_other_dtypes_are_refused(model, options, name):
    with pytest.raises(UnknownNameError, match=f"Unknown {name}"):
        apply_layerwise_casting(model, **options)
    assert model.linear.weight.dtype == torch.float32
