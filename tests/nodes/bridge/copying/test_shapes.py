"""Many shapes in which nodes hold a module of the model: each acts on the copy, or is refused."""

import weakref
from functools import partial

import pytest
import torch

from graphquant.quant_core import plan_component

pytestmark = pytest.mark.usefixtures("comfy")

KEY = "diffusion_model.double_blocks.0.img_attn.qkv.weight"


class Holder:
    """As an attention replacer that keeps its block."""

    def __init__(self, module):
        self.module, self.count = module, [0]

    def __call__(self, *_):
        return self.module

    def method(self, *_):
        return self.module


class InList:
    def __init__(self, module):
        self.modules = [module]

    def __call__(self, *_):
        return self.modules[0]


class Bank:
    """Looks up its module by name."""

    def __init__(self, module):
        self.by_name = {"block": module}

    def __call__(self, *_):
        return self.by_name["block"]


def closure(module):
    return lambda *_: module


class Slots:
    __slots__ = ("module",)

    def __init__(self, module):
        self.module = module

    def __call__(self, *_):
        return self.module


class HoldsFunction:
    def __init__(self, module):
        self.function = lambda *_: module

    def __call__(self, *_):
        return self.function()


def returned(module, *_):
    return module


def by_default(module):
    return lambda *_, module=module: module


def in_a_list(module):
    modules = [None, module]
    return lambda *_: modules[1]


def over(held):
    """A function over something that gives the module when it is called."""
    return lambda *_: held()


# How a module is held; each gives the module that it acts on when it is called.
SHAPES = {
    "closure": closure,
    "closure in a closure": lambda module: closure(closure(module)()),
    "partial": lambda module: partial(returned, module),
    "partial by keyword": lambda module: partial(lambda *_, module: module, module=module),
    "partial of a closure": lambda module: partial(closure(module), 1),
    "object": Holder,
    "bound method of an object": lambda module: Holder(module).method,
    "object with a list": InList,
    "object with a dict": Bank,
    "closure over an object": lambda module: over(Holder(module)),
    "closure over a partial": lambda module: over(partial(returned, module)),
    "closure over a bound method": lambda module: over(Holder(module).method),
    "closure over a weak reference": lambda module: over(weakref.ref(module)),
    "closure over a list": in_a_list,
    "default argument": by_default,
    "object with slots": Slots,
    "object with a function": HoldsFunction,
    "partial of a bound method": lambda module: partial(Holder(module).method, 1),
}
PLACES = {
    "options": lambda patcher, value: patcher.model_options.update(shape=value),
    "transformer_options": lambda patcher, value: patcher.set_model_attn1_replace(
        value, "input", 1
    ),
    "wrappers": lambda patcher, value: patcher.add_wrapper_with_key("diffusion_model", "a", value),
    "callbacks": lambda patcher, value: patcher.add_callback_with_key("on_load", "a", value),
}


def found(patcher, place):
    if place == "options":
        return patcher.model_options["shape"]
    if place == "transformer_options":
        return patcher.model_options["transformer_options"]["patches_replace"]["attn1"]["input", 1]
    table = patcher.wrappers if place == "wrappers" else patcher.callbacks
    return table["diffusion_model" if place == "wrappers" else "on_load"]["a"][0]


def rebound(patcher, model):
    from graphquant.nodes.bridge.copying.rebinding import rebind

    copied = patcher.clone(model_override=(model, ({}, {}, {}, set())))
    rebind(copied, patcher.model)
    return copied


@pytest.fixture
def copied(flux_patcher):
    from graphquant.nodes.bridge.copying.model_copy import copy_modules

    return copy_modules(flux_patcher.model, lambda _, parameter: parameter)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_in_each_place_acts_on_the_copy(shape, flux_patcher, copied):
    block = flux_patcher.model.diffusion_model.double_blocks[0]
    for place, put in PLACES.items():
        model = flux_patcher.clone()
        held = SHAPES[shape](block)
        put(model, held)
        led = found(rebound(model, copied), place)
        assert led() is copied.diffusion_model.double_blocks[0]
        assert found(model, place) is held and held() is block


def test_one_object_in_two_places_stays_one_and_keeps_its_state(flux_patcher, copied):
    held = Holder(flux_patcher.model.diffusion_model)
    flux_patcher.model_options["first"] = flux_patcher.model_options["second"] = held
    options = rebound(flux_patcher, copied).model_options
    assert options["first"] is options["second"] is not held
    assert options["first"].count is held.count


def test_what_holds_no_module_is_the_same_object(flux_patcher, copied):
    held = {
        "plain": Holder(3),
        "function": returned,
        "partial": partial(returned, 3),
        "class": Holder,
    }
    flux_patcher.model_options["shape"] = held
    led = rebound(flux_patcher, copied).model_options["shape"]
    assert all(led[key] is held[key] for key in held)


def test_a_holder_of_a_model_with_another_lora_is_refused_with_its_kind_and_the_remedy(
    flux_patcher, quantize
):
    model = flux_patcher.clone()
    other = flux_patcher.clone()
    other.add_patches({KEY: ("diff", (torch.ones(1),))})
    model.model_options["shape"] = Holder(other)
    sentence = r"put a Holder \(of .*test_shapes\).*Put that node after Quantize Model"
    with pytest.raises(ValueError, match=sentence):
        quantize(model)
    assert plan_component(flux_patcher.model.diffusion_model, "int8").quantized


def test_a_closure_over_the_model_has_the_quantized_one_and_later_loras_do_not_matter(
    flux_patcher, quantize, with_lora
):
    changed = flux_patcher.clone()

    def wrapper(*_):
        return changed

    changed.set_model_unet_function_wrapper(wrapper)
    changed.model_options["holder"] = Holder(changed)
    patched, _ = with_lora(changed, ["double_blocks.0.img_attn.qkv"])
    for model in (changed, patched):
        quantized = quantize(model)
        assert quantized.model_options["model_function_wrapper"]() is quantized
        assert quantized.model_options["holder"]() is quantized
        assert wrapper() is changed


def test_a_model_of_another_kind_in_a_closure_stays(flux_patcher, quantize):
    from comfy.model_patcher import ModelPatcher

    other = ModelPatcher(torch.nn.Linear(2, 2), torch.device("cpu"), torch.device("cpu"))
    held = over(lambda: other)
    flux_patcher.model_options["shape"] = held
    assert quantize(flux_patcher).model_options["shape"] is held
