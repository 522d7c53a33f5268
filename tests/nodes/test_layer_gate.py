"""Every quantized layer of the miniature computes its own product; the gate sees what breaks."""

from types import SimpleNamespace

import pytest
import torch

from graphquant.quant_core.methods import METHODS
from lab.layer_gate import BREAKAGES, faults

pytestmark = pytest.mark.usefixtures("comfy")

GATED = [name for name in METHODS if name not in ("none", "fastest", "fp8-static", "fit")]
GATED = [name for name in GATED if not name.startswith("svdquant")]
BROKEN = "single_blocks.1.linear2"


@pytest.fixture(scope="module")
def miniature(comfy):
    """The MODEL, and what reaches each layer in one call of it."""
    from lab.miniature.drawing import call, load_transformer, noise

    model, inputs = load_transformer(), {}

    def keep(name):
        def hook(module, given, output):
            inputs[name] = given[0]

        return hook

    start = noise(2, 3)
    root = model.model.diffusion_model
    layers = [(n, m) for n, m in root.named_modules() if isinstance(m, torch.nn.Linear)]
    hooks = [module.register_forward_hook(keep(name)) for name, module in layers]
    with torch.inference_mode():
        call(model, "38", torch.zeros_like(start), start, 0.7)
    for hook in hooks:
        hook.remove()
    return SimpleNamespace(model=model, root=root, inputs=inputs)


@pytest.fixture
def quantized(miniature):
    """``quantized(method)`` -> the quantized diffusion model, and its layers' inputs."""
    from graphquant.nodes.quantize_model import GQQuantizeModel

    def run(method):
        with torch.inference_mode():
            output = GQQuantizeModel.execute(miniature.model, method)
        report = output.ui["graphquant"][0]
        names = [each["name"] for each in report["layers"] if each["action"] == "quantize"]
        root = output.result[0].model.diffusion_model
        return root, {name: miniature.inputs[name] for name in names}

    return run


@pytest.mark.parametrize("method", GATED)
def test_every_layer_is_right_and_every_breakage_of_one_is_seen(method, miniature, quantized):
    root, inputs = quantized(method)
    assert len(inputs) == 32
    with torch.inference_mode():
        assert faults(root, miniature.root, inputs) == []
        for name, broken in BREAKAGES.items():
            found = faults(root, _broken_at(miniature.root, broken), {BROKEN: inputs[BROKEN]})
            assert f"{BROKEN}: weight" in found, name
        layer = root.get_submodule(BROKEN)
        bias, layer.bias = layer.bias, None
        found = faults(root, miniature.root, {BROKEN: inputs[BROKEN]})
        layer.bias = bias
    assert found[0] == f"{BROKEN}: bias"


def _broken_at(root, broken):
    """A view of ``root`` whose layer BROKEN has another weight than the one that was quantized."""

    def get_submodule(name):
        layer = root.get_submodule(name)
        weight = broken(layer.weight.detach().float()) if name == BROKEN else layer.weight
        return SimpleNamespace(weight=weight, bias=layer.bias)

    return SimpleNamespace(get_submodule=get_submodule)


@pytest.mark.parametrize("method", ["int8", "int8-dynamic", "int4", "nf4-fine", "w4a8"])
def test_arithmetic_that_forgets_the_bias_is_seen(method, miniature, quantized, monkeypatch):
    root, inputs = quantized(method)
    fmt = type(root.get_submodule(BROKEN).weight._params.format)
    whole = fmt.linear
    monkeypatch.setattr(fmt, "linear", lambda self, x, weight, bias: whole(self, x, weight, None))
    with torch.inference_mode():
        found = faults(root, miniature.root, inputs)
    assert f"{BROKEN}: output" in found
