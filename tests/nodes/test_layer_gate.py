"""Every quantized layer of the miniature computes its own product; the gate sees what breaks."""

from types import SimpleNamespace

import pytest
import torch

from graphquant.quant_core.calibration import Calibration, LayerActivations
from graphquant.quant_core.methods import CALIBRATED, METHODS
from lab.layer_gate import BREAKAGES, PRODUCTS, faults

pytestmark = pytest.mark.usefixtures("comfy")

# fastest chooses among these.
UNGATED = ("none", "fastest")
GATED = [name for name in METHODS if name not in UNGATED]
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
        options = {}
        if method == "fit":
            options = {"size_gib": 0.4 * miniature.model.model_size() / 2**30}
        if method == "fp8-static":
            layers = {
                name: LayerActivations(x.abs().max().item(), 1, 1)
                for name, x in miniature.inputs.items()
            }
            options = {"calibration": Calibration(layers)}
        if method in CALIBRATED:
            rows = {name: x.flatten(0, -2) for name, x in miniature.inputs.items()}
            calibration = Calibration({}, rows=rows)
            options = {"calibration": calibration, "rounding": "nearest", "rank": 8}
        with torch.inference_mode():
            output = GQQuantizeModel.execute(miniature.model, method, **options)
        report = output.ui["graphquant"][0]
        names = [each["name"] for each in report["layers"] if each["action"] == "quantize"]
        root = output.result[0].model.diffusion_model
        if method in CALIBRATED:  # whose biases were shifted by the mean error
            for name in names:
                root.get_submodule(name).bias = miniature.root.get_submodule(name).bias
        return root, {name: miniature.inputs[name] for name in names}

    return run


@pytest.mark.parametrize("method", GATED)
def test_every_layer_is_right_and_every_breakage_of_one_is_seen(
    method, miniature, quantized, monkeypatch
):
    root, inputs = quantized(method)
    assert len(inputs) == 32 or (method == "fit" and BROKEN in inputs)
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
        fmt = type(layer.weight._params.format)
        whole = fmt.linear
        for name, broken in PRODUCTS.items():
            monkeypatch.setattr(fmt, "linear", broken(whole))
            found = faults(root, miniature.root, {BROKEN: inputs[BROKEN]})
            assert len(found) == 1 and found[0].startswith(f"{BROKEN}: "), name


def _broken_at(root, broken):
    """A view of ``root`` whose layer BROKEN has another weight than the one that was quantized."""

    def get_submodule(name):
        layer = root.get_submodule(name)
        weight = broken(layer.weight.detach().float()) if name == BROKEN else layer.weight
        return SimpleNamespace(weight=weight, bias=layer.bias)

    return SimpleNamespace(get_submodule=get_submodule)
