"""Wrappers of other packs that close over a model's modules run the quantized ones."""

from types import MethodType
from unittest.mock import patch

import pytest
import torch

pytestmark = pytest.mark.usefixtures("comfy")


def tea_cache(patcher, every=2):
    """As the public node does it: a wrapper that closes over the diffusion model and replaces its
    forward while it runs, here by one that computes every second step only."""
    changed = patcher.clone()
    model = changed.get_model_object("diffusion_model")
    state = {"calls": 0, "computed": 0, "last": None}

    def forward(self, *args, **kwargs):
        state["calls"] += 1
        if state["last"] is None or state["calls"] % every:
            state["computed"] += 1
            state["last"] = type(self).forward(self, *args, **kwargs)
        return state["last"]

    def wrapper(apply_model, options):
        with patch.object(model, "forward", MethodType(forward, model)):
            return apply_model(options["input"], options["timestep"], **options["c"])

    changed.set_model_unet_function_wrapper(wrapper)
    return changed, state


def test_a_wrapper_that_skips_steps_skips_them_before_and_after_quantizing(
    flux_patcher, quantize, sample
):
    before = sample(flux_patcher, steps=4)
    cached, state = tea_cache(flux_patcher)
    quantized = quantize(cached, "int8")
    found = sample(quantized, steps=4)
    assert (state["calls"], state["computed"]) == (4, 2)
    after, _ = tea_cache(quantize(flux_patcher, "int8"))
    assert torch.equal(found, sample(after, steps=4))
    state.update(calls=0, computed=0, last=None)
    plain = sample(cached, steps=4)
    assert state["computed"] == 2
    assert 0 < (found - plain).norm() / plain.norm() < 0.05
    assert torch.equal(sample(flux_patcher, steps=4), before)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_module_that_a_function_inside_closes_over_is_found(depth, flux_patcher, quantize):
    changed = flux_patcher.clone()
    model = changed.get_model_object("diffusion_model")
    seen, shared = [], [0]

    def wrapper(apply_model, options):
        seen.append(model)
        shared[0] += 1
        return apply_model(options["input"], options["timestep"], **options["c"])

    made = wrapper
    for _ in range(depth):
        made = (lambda inner: lambda apply_model, options: inner(apply_model, options))(made)
    changed.set_model_unet_function_wrapper(made)
    quantized = quantize(changed, "int8")
    found = quantized.model_options["model_function_wrapper"]
    found(lambda *args, **kwargs: None, {"input": 0, "timestep": 0, "c": {}})
    assert seen == [quantized.model.diffusion_model] and shared == [1]
    assert changed.model_options["model_function_wrapper"] is made


def test_patches_in_the_transformer_options_are_led_too_and_others_stay(flux_patcher, quantize):
    changed = flux_patcher.clone()
    block = changed.get_model_object("diffusion_model").double_blocks[0]

    def over(args, extra):
        return block, args

    def free(args, extra):
        return args

    changed.set_model_patch_replace(over, "dit", "double_block", 0)
    changed.set_model_patch_replace(free, "dit", "double_block", 1)
    quantized = quantize(changed, "int8")
    replaced = quantized.model_options["transformer_options"]["patches_replace"]["dit"]
    assert replaced["double_block", 0](1, 2)[0] is quantized.model.diffusion_model.double_blocks[0]
    assert replaced["double_block", 1] is free


def test_functions_that_call_each_other_are_led_without_end(flux_patcher, quantize):
    changed = flux_patcher.clone()
    model = changed.get_model_object("diffusion_model")

    def even(number, _=None):
        return model if number == 0 else odd(number - 1)

    def odd(number):
        return None if number == 0 else even(number - 1)

    changed.set_model_unet_function_wrapper(even)
    quantized = quantize(changed, "int8")
    led = quantized.model_options["model_function_wrapper"]
    for depth in (0, 2, 4):
        assert led(depth) is quantized.model.diffusion_model
        assert even(depth) is model


def test_state_stays_shared_by_the_functions_that_are_led_and_those_that_are_not(
    flux_patcher, quantize
):
    changed = flux_patcher.clone()
    model, calls = changed.get_model_object("diffusion_model"), 0

    def counted(*_):
        nonlocal calls
        calls += 1
        return model

    def count(*_):
        return calls

    changed.model_options |= {"counted": counted, "count": count}
    options = quantize(changed, "int8").model_options
    assert options["counted"]() is not counted()
    assert options["count"] is count and count() == options["count"]() == 2


def test_functions_that_share_a_module_share_the_new_one(flux_patcher, quantize):
    changed = flux_patcher.clone()
    held = changed.get_model_object("diffusion_model")

    def give(*_):
        return held

    def replace(new):
        nonlocal held
        held = new

    changed.model_options |= {"give": give, "replace": replace}
    options = quantize(changed, "int8").model_options
    options["replace"](3)
    assert options["give"]() == 3 and give() is changed.model.diffusion_model
