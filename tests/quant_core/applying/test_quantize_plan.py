"""A plan is carried out one layer at a time, and attaches nothing."""

import weakref

import pytest
import torch
from torch import nn

from graphquant.quant_core import NonFiniteWeightError, plan_component
from graphquant.quant_core.applying.quantize_plan import quantize_plan, quantizing_bytes
from graphquant.quant_core.formats import Int4, Int8
from graphquant.quant_core.planning.decisions import QUANTIZE, LayerPlan, Plan
from lab.fake_gpu import fake_gpu
from lab.formats import EACH_KIND


@pytest.fixture
def plan(transformer, cpu):
    return plan_component(transformer, "int8", hardware=cpu)


@pytest.fixture
def read(transformer):
    return lambda name: transformer.get_submodule(name).weight.detach()


def test_every_planned_layer_is_quantized_in_its_own_format_and_nothing_is_attached(
    transformer, plan, read
):
    before = [(p, p.clone()) for p in transformer.parameters()]
    weights = quantize_plan(plan, read)
    assert list(weights) == [layer.name for layer in plan.quantized]
    for layer in plan.quantized:
        expected = layer.format.quantize(read(layer.name))
        assert torch.equal(weights[layer.name].qdata, expected.qdata)
        assert weights[layer.name].nbytes == layer.bytes_after
    for (old, value), new in zip(before, transformer.parameters(), strict=True):
        assert old is new and torch.equal(value, new)


def test_a_weight_is_read_when_its_turn_comes_and_released_before_the_next(plan, read):
    alive = []

    def copy(name):
        assert [ref() for ref in alive] == [None] * len(alive)
        weight = read(name).clone()
        alive.append(weakref.ref(weight))
        return weight

    quantize_plan(plan, copy)
    assert len(alive) == len(plan.quantized) == 11


def test_on_layer_is_told_before_each_read_and_may_cancel(plan, read):
    class Cancelled(Exception):
        pass

    events = []

    def on_layer(layer):
        events.append(("turn", layer.name))
        if len(events) == 7:
            raise Cancelled

    def noting(name):
        events.append(("read", name))
        return read(name)

    with pytest.raises(Cancelled):
        quantize_plan(plan, noting, on_layer=on_layer)
    first = [layer.name for layer in plan.quantized[:4]]
    expected = [(what, name) for name in first for what in ("turn", "read")]
    assert events == expected[:7]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("method", ["int8", "int4", "fp8-weight-only"])
def test_a_weight_that_is_not_finite_is_refused_by_its_layers_name(
    method, value, transformer, read, cpu
):
    transformer.blocks[1].mlp[2].weight[255, 511] = value
    plan = plan_component(transformer, method, hardware=cpu)
    with pytest.raises(NonFiniteWeightError) as caught:
        quantize_plan(plan, read)
    assert str(caught.value) == (
        "blocks.1.mlp.2.weight holds NaN or infinity. "
        "Exclude 'blocks.1.mlp.2', or repair the checkpoint."
    )


def test_tied_layers_share_one_result_and_are_read_once(cpu):
    model = nn.ModuleDict({name: nn.Linear(64, 64) for name in "abc"})
    model["c"].weight = model["a"].weight
    reads = []
    weights = quantize_plan(
        plan_component(model, "int8", hardware=cpu),
        lambda name: reads.append(name) or model[name].weight.detach(),
    )
    assert reads == ["a", "b"]
    assert weights["c"] is weights["a"] is not weights["b"]


@pytest.mark.gpu
def test_the_arithmetic_runs_on_the_device_asked_for_and_the_result_comes_home(plan, read):
    torch.cuda.reset_peak_memory_stats()
    on_gpu, on_cpu = quantize_plan(plan, read, device="cuda"), quantize_plan(plan, read)
    assert torch.cuda.max_memory_allocated() > 0
    for name, weight in on_gpu.items():
        assert {part.device.type for part in weight.tensors.values()} == {"cpu"}
        assert torch.equal(weight.qdata, on_cpu[name].qdata)


@pytest.mark.parametrize("fmt", [Int8(), Int4(128), *EACH_KIND], ids=str)
def test_quantizing_on_a_gpu_stays_within_the_bytes_that_are_asked_for(fmt):
    """On tensors without values, of the largest layer of FLUX.1."""
    with fake_gpu() as session:
        session.trace.may_wait = True
        weight = session.empty(12288, 3072)
        session.trace.hold(weight)
        stored = fmt.quantize(weight).nbytes
        layer = LayerPlan("a", "Linear", weight.shape, "", QUANTIZE, "", weight.nbytes, stored, fmt)
        plan = Plan("", "", "", "transformer", "per-row", None, (layer,))
        assert stored + weight.nbytes < session.trace.peak <= quantizing_bytes(plan)
