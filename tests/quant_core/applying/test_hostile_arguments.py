"""Whatever Python gives quantize_component, it works or one sentence says what is wrong."""

import random

import pytest
import torch
from torch import nn

from graphquant import quant_core
from graphquant.quant_core import VALID_METHODS, QuantizationError, quantize_component
from graphquant.quant_core.detect import module_bytes

ARGUMENTS = [
    ({"include": 5}, "include has 5, which is not a pattern."),
    ({"include": ["a", 3]}, "include has 3, which is not a pattern."),
    ({"exclude": [None]}, "exclude has None, which is not a pattern."),
    ({"exclude": object}, "exclude has <class 'object'>"),
    ({"preset": 3}, "Unknown preset 3."),
    ({"preset": ["flux1"]}, "Unknown preset ['flux1']."),
    ({"component_type": ["vae"]}, "Unknown component type ['vae']."),
    ({"granularity": {"row"}}, "Unknown granularity {'row'}."),
    ({"scope": None, "component_type": "vae"}, "Unknown scope None."),
    ({"int4_algorithm": []}, "Unknown INT4 algorithm []."),
    ({"method": ["int8"]}, "Unknown method ['int8']."),
    ({"calibration": "flux.safetensors"}, "calibration is 'flux.safetensors'. Give a Calibration"),
    ({"calibration": {}}, "calibration is {}. Give a Calibration"),
    ({"fit": "2 GiB"}, "fit is '2 GiB'. Give Fit(size=...), in bytes"),
    ({"fit": 3, "method": "fit"}, "fit is 3. Give Fit(size=...), in bytes"),
    ({"hardware": "cuda"}, "hardware is 'cuda'. Give a Hardware, such as hardware_of('cuda')."),
    ({"hardware": {"device": "cpu"}}, "hardware is {'device': 'cpu'}. Give a Hardware"),
    ({"hardware": ""}, "hardware is ''. Give a Hardware"),
    ({"search": 0.05, "method": "fastest"}, "search is 0.05. Give a Search"),
    ({"device": "banana"}, "device is 'banana'. Name one of PyTorch's devices"),
    ({"device": ["cpu"]}, "device is ['cpu']. Name one of PyTorch's devices"),
    ({"device": "cuda:99"}, "device is 'cuda:99', which PyTorch does not"),
    ({"on_layer": 3}, "on_layer is 3. Give a function, or None."),
    ({"requantize": "no"}, "requantize is 'no'. Give True or False."),
    ({"rounding": None}, "Unknown rounding None."),
]


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS, ids=[m for _, m in ARGUMENTS])
def test_an_argument_of_another_type_is_named(arguments, message, transformer):
    before = list(transformer.parameters())
    with pytest.raises(QuantizationError) as error:
        quantize_component(transformer, **{"method": "int8", **arguments})
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    assert all(a is b for a, b in zip(before, transformer.parameters(), strict=True))


@pytest.mark.parametrize("model", [None, "model.safetensors", torch.zeros(3), {}, nn.Linear])
def test_what_is_not_a_module_is_named(model):
    with pytest.raises(QuantizationError, match=r"^model is a \w+, not an nn\.Module\."):
        quantize_component(model, "int8")


@pytest.mark.parametrize("method", ["int8", "fp6", "nf4", "int4"])
def test_weights_without_values_are_named(method):
    model = nn.Sequential(nn.Linear(64, 64)).to("meta")
    with pytest.raises(QuantizationError, match=r"^0\.weight is on the meta device"):
        quantize_component(model, method)


_LINEAR = nn.Linear(64, 64)
OTHER_CALLS = [
    (lambda: quant_core.estimate(None), "source is None. Give the path of a model file, or an"),
    (lambda: quant_core.estimate(5), "source is 5. Give the path of a model file"),
    (lambda: quant_core.estimate(nn.Linear), "source is <class"),
    (lambda: quant_core.estimate(_LINEAR, 5), "methods is 5. Give a method's name, or several."),
    (lambda: quant_core.hardware_of("gpu"), "device is 'gpu'. Name one of PyTorch's devices"),
    (lambda: quant_core.check_fp8_support([]), "device is []. Name one of PyTorch's devices"),
    (lambda: quant_core.get_recommended_method("cuda"), "hardware is 'cuda'. Give a Hardware"),
    (lambda: quant_core.plan_component(_LINEAR, "int8", hardware=8), "hardware is 8. Give a Hard"),
    (
        lambda: quant_core.plan_component(_LINEAR, "int8", convolutions="keep"),
        "convolutions is 'keep'. Give True or False.",
    ),
    (lambda: quant_core.load_calibration(None), "path is None. Give the path as a text"),
    (lambda: quant_core.save_calibration(None, "x"), "calibration is None. Give a Calibration"),
    (
        lambda: quant_core.observe(_LINEAR, on_call=3).__enter__(),
        "on_call is 3. Give a function, or None.",
    ),
    (lambda: quant_core.Sensitivity.load(None), "path is None. Give the path as a text"),
    (lambda: quant_core.Recipe.load(7), "path is 7. Give the path as a text"),
    (lambda: quant_core.load_pipeline(None, None), "folder is None. Give the path as a text"),
    (lambda: quant_core.save_pipeline(None, "x"), "pipe is None. Give a pipeline of diffusers."),
    (lambda: quant_core.apply_layerwise_casting(None), "module is a NoneType, not an nn.Module."),
    (lambda: quant_core.remove_layerwise_casting({}), "module is a dict, not an nn.Module."),
    (lambda: quant_core.config_from_text(None), "text is None. Give a configuration as a text"),
]


@pytest.mark.parametrize(("call", "message"), OTHER_CALLS, ids=[m for _, m in OTHER_CALLS])
def test_every_other_function_names_an_argument_of_another_type_too(call, message):
    with pytest.raises(QuantizationError) as error:
        call()
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


# Modules may be called like methods of nn.Module, and weights have any size.
_NAMES = ("half", "float", "type", "norm", "blocks", "to", "lm_head", "train", "data", "0x")


def _leaf(random):
    n, k = (random.choice((1, 7, 16, 32, 64)) for _ in range(2))
    makers = (
        lambda: nn.Linear(k, n, bias=random.random() < 0.5),
        lambda: nn.Linear(64, 32, dtype=random.choice((torch.float16, torch.float64))),
        lambda: nn.Embedding(n, k),
        lambda: nn.Conv2d(k, n, 1),
        lambda: nn.MultiheadAttention(16, 2),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(16, 8)),
    )
    return random.choice(makers)()


def _tree(random, depth=0):
    if depth == 3 or random.random() < 0.2:
        return _leaf(random)
    module = nn.Module()
    for name in random.sample(_NAMES, random.randrange(1, 5)):
        module._modules[name] = _tree(random, depth + 1)
    return module


@pytest.mark.parametrize("seed", range(40))
def test_any_tree_is_quantized_and_counted_or_refused_untouched(seed):
    choose = random.Random(seed)
    torch.manual_seed(seed)
    model = _tree(choose).requires_grad_(False)
    before = [(name, id(each)) for name, each in model.named_parameters()]
    method = choose.choice([m for m in VALID_METHODS if m != "fastest"])
    kind = choose.choice(("encoder", "transformer", "vae"))
    try:
        _, stats = quantize_component(model, method, kind)
    except QuantizationError as error:
        assert "\n" not in str(error)
        assert [(name, id(each)) for name, each in model.named_parameters()] == before
        return
    layers = sum(layer["bytes_after"] for layer in stats["layers"])
    rest = sum(each["bytes"] for each in stats["remainder"])
    assert layers + rest == stats["model_bytes_after"] == module_bytes(model)
