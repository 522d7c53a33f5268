"""A quantized Linear that nothing is pending for is computed at once: equal, by fewer calls."""

from functools import partial

import pytest
import torch

from graphquant.quant_core.methods import MEASURED, METHODS
from lab.counting import function_calls

pytestmark = pytest.mark.usefixtures("comfy", "inference_mode")

QUANTIZED = [name for name in METHODS if name not in ("none", *MEASURED)]
SPEEDY = ("fp8-dynamic", "fp8-weight-only", "int8", "int8-dynamic", "int4")


def layer_in(method=None, dtype=torch.float32, operations="disable_weight_init"):
    import comfy.ops

    from graphquant.nodes.bridge.tensor.quantized_layer import quantize_layer

    generator = torch.Generator().manual_seed(0)
    layer = getattr(comfy.ops, operations).Linear(64, 64, dtype=dtype)
    for name, shape in (("weight", (64, 64)), ("bias", (64,))):
        values = torch.randn(shape, generator=generator).to(dtype)
        setattr(layer, name, torch.nn.Parameter(values, requires_grad=False))
    if method:
        fmt = METHODS[method].choose((64, 64), "per-row").format
        quantize_layer(layer, fmt.quantize(layer.weight.detach()), dtype)
    return layer


def tokens(dtype=torch.float32):
    return torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(1)).to(dtype)


def taken(monkeypatch):
    """The layers that were computed directly, by name of what they returned."""
    from graphquant.nodes.bridge.tensor import quantized_layer

    answers = []
    direct = quantized_layer.direct_linear

    def noted(layer, x):
        answers.append(direct(layer, x))
        return answers[-1]

    monkeypatch.setattr(quantized_layer, "direct_linear", noted)
    return answers


@pytest.mark.parametrize("operations", ["disable_weight_init", "manual_cast"])
@pytest.mark.parametrize("method", SPEEDY)
def test_the_result_is_that_of_stocks_forward(method, operations, monkeypatch):
    layer, x = layer_in(method, operations=operations), tokens()
    answers = taken(monkeypatch)
    y = layer(x)
    assert answers[0] is y
    stock = torch.nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.equal(y, stock)


def test_what_is_pending_goes_the_long_way(monkeypatch):
    x, answers = tokens(), taken(monkeypatch)
    twice = layer_in("int8")
    plain = twice(x)
    twice.weight_function = [lambda weight: 2 * weight]
    assert torch.allclose(twice(x) - twice.bias, 2 * (plain - twice.bias), atol=1e-4)
    shifted = layer_in("int8")
    shifted.bias_function = [lambda bias: bias + 1]
    assert torch.allclose(shifted(x), plain + 1, atol=1e-4)
    cast = layer_in("int8", torch.bfloat16, "manual_cast")
    assert cast(x).dtype == torch.float32
    assert [answer is None for answer in answers] == [False, True, True, True]


def test_a_loras_factors_are_added(monkeypatch):
    layer, x = layer_in("int4"), tokens()
    weight = layer.convert_weight(layer.weight)
    delta = torch.ones(64, 1) @ torch.linspace(-1, 1, 64)[None]
    before = layer(x)
    layer.set_weight(weight + delta)
    answers = taken(monkeypatch)
    assert torch.allclose(layer(x) - before, torch.nn.functional.linear(x, delta), atol=1e-3)
    assert answers[0] is not None


def test_an_interrupt_is_heard(monkeypatch):
    import comfy.model_management

    layer, x = layer_in("int8"), tokens()
    comfy.model_management.interrupt_current_processing()
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            layer(x)
    finally:
        comfy.model_management.interrupt_current_processing(False)


def test_a_gradient_is_not_lost():
    with torch.inference_mode(False):
        layer = layer_in("int8")
        x = tokens().requires_grad_()
        assert torch.is_grad_enabled() and layer(x).requires_grad


def test_torch_compile_sees_stocks_forward():
    layer, x = layer_in("int8"), tokens()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("operations", ["disable_weight_init", "manual_cast"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", SPEEDY)
def test_a_layer_makes_thirty_calls_beside_those_of_its_format(
    method, dtype, operations, monkeypatch
):
    """Calls of functions, in Python and into C: 25 here, and 57 to 91 through stock's forward. What
    they take in microseconds ``benchmarks.bars`` measures."""
    from graphquant.nodes.bridge.tensor import quantized_layer

    layer, x = layer_in(method, dtype, operations), tokens(dtype)
    fmt = METHODS[method].choose((64, 64), "per-row").format
    stored = fmt.quantize(torch.ones(64, 64, dtype=dtype))
    layer(x), fmt.linear(x, stored, layer.bias)  # the first call finds what the later ones reuse
    of_the_format = function_calls(partial(fmt.linear, x, stored, layer.bias))
    assert function_calls(partial(layer, x)) - of_the_format <= 30
    monkeypatch.setattr(quantized_layer, "direct_linear", lambda layer, x: None)
    assert function_calls(partial(layer, x)) - of_the_format > 50
