"""A quantized model goes on being a model: it is run, copied, moved, saved, loaded and compiled."""

import copy
import io

import pytest
import torch
from torch import nn
from torch._dynamo.backends.common import aot_autograd

from graphquant.quant_core import VALID_METHODS, quantize_component
from graphquant.quant_core.methods import MEASURED
from lab.sampling import relative_l2

METHODS = [name for name in VALID_METHODS[1:] if name not in MEASURED]
every_method = pytest.mark.parametrize("method", METHODS)


@every_method
def test_a_model_quantized_in_either_mode_computes_the_same_in_both(
    method, transformer, tokens, mode
):
    quantize_component(transformer, method)
    with torch.inference_mode():
        inside = transformer(tokens)
    with torch.inference_mode(False), torch.no_grad():
        assert torch.equal(transformer(tokens.clone()), inside)


@every_method
def test_a_model_made_and_quantized_in_inference_mode_can_be_saved_and_moved_outside(
    method, tokens
):
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(128, 64, bias=False))
        quantize_component(model, method)
    assert not model[0].weight.is_inference()
    assert list(model.state_dict()) == ["0.weight"]
    assert model.to("meta")[0].weight.device.type == "meta"


@every_method
def test_a_quantized_model_can_be_copied_moved_saved_and_loaded(method, transformer, tokens, mode):
    blank = copy.deepcopy(transformer)
    quantize_component(transformer, method)
    with torch.inference_mode(False), torch.no_grad():
        y = transformer(tokens := tokens.clone())
        copied = copy.deepcopy(transformer)
        assert torch.equal(copied(tokens), y)
        assert torch.equal(copied.to("cpu")(tokens), y)
        assert {p.device.type for p in copied.to("meta").parameters()} == {"meta"}
        file = io.BytesIO()
        torch.save(transformer.state_dict(), file)
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
        assert blank.load_state_dict(loaded, assign=True).missing_keys == []
        assert torch.equal(blank(tokens), y)
        assert repr(transformer).startswith("Transformer(\n  (img_in): Linear(in_features=64, ")


@pytest.mark.parametrize(("method", "bound"), [("int8", 1e-5), ("int4", 1e-5)])
def test_a_compiled_model_gives_what_the_eager_one_gives_in_one_graph(method, bound, normal):
    model = nn.Sequential(nn.Linear(256, 128), nn.GELU(), nn.Linear(128, 64)).requires_grad_(False)
    x = normal(9, 256, std=1.0)
    exact = model(x)
    quantize_component(model, method)
    eager = model(x)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True)(x)
    assert relative_l2(compiled, eager) < bound
    assert relative_l2(compiled, exact) > 0.002


@pytest.mark.parametrize("method", METHODS[5:])
def test_every_format_is_traced_in_one_graph(method, normal):
    model = nn.Sequential(nn.Linear(256, 128), nn.GELU(), nn.Linear(128, 64)).requires_grad_(False)
    quantize_component(model, method)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for tokens in (9, 5):
        x = normal(tokens, 256, std=1.0)
        assert relative_l2(compiled(x), model(x)) < 1e-5


def test_a_large_int4_weight_is_dequantized_in_one_piece_under_compile(normal):
    """In blocks, as in eager mode on a CPU, the loop would be unrolled: ten times the compile."""
    sizes = []

    def count(graph, inputs):
        sizes.append(len(graph.graph.nodes))
        return graph.forward

    model = nn.Sequential(nn.Linear(2048, 1024)).requires_grad_(False)
    quantize_component(model, "int4")
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=aot_autograd(fw_compiler=count), fullgraph=True)
    x = normal(3, 2048, std=1.0)
    assert torch.equal(compiled(x), model(x))
    (size,) = sizes
    assert size < 30
