"""LoRA, LoHa, LoKr, DoRA and several in a row, on every method: as exact as if they were baked in,
off without a trace, and any number of times."""

import logging

import pytest
import torch

from graphquant.quant_core.methods import CALIBRATED, MEASURED, VALID_METHODS

pytestmark = pytest.mark.usefixtures("comfy")

METHODS = [method for method in VALID_METHODS if method not in ("none", *MEASURED)]
METHODS += CALIBRATED
LAYER = "double_blocks.0.img_attn.proj"
KEY = f"diffusion_model.{LAYER}.weight"
N, K = 256, 256


def gaussian(*shape, seed, scale=0.1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def lora(seed=1, rank=4, scale=0.1):
    return {
        "lora_up.weight": gaussian(N, rank, seed=seed, scale=scale),
        "lora_down.weight": gaussian(rank, K, seed=seed + 50),
    }


def dora(shape=(N, 1)):
    return lora() | {"dora_scale": gaussian(*shape, seed=4, scale=0.2) + 1.0}


def loha(rank=4):
    shapes = {"hada_w1_a": (N, rank), "hada_w1_b": (rank, K)}
    shapes |= {"hada_w2_a": (N, rank), "hada_w2_b": (rank, K)}
    return {name: gaussian(*s, seed=i, scale=0.2) for i, (name, s) in enumerate(shapes.items())}


def lokr(seed=1):
    return {
        "lokr_w1": gaussian(8, 8, seed=seed),
        "lokr_w2": gaussian(N // 8, K // 8, seed=seed + 50),
    }


def difference(scale=0.03):
    return {"diff": gaussian(N, K, seed=7, scale=scale)}


UNFUSED = {
    "LoRA": [lora()],
    "LoHa": [loha()],
    "LoKr": [lokr()],
    "DoRA": [dora()],
    "DoRA by columns": [dora((1, K))],
    "LoRA and LoKr": [lora(), lokr()],
    "LoRAs of two ranks": [lora(), lora(seed=2, rank=16)],
    "the same LoRA twice": [lora(), lora()],
}
# Rounding ten times looks for low-rank factors ten times, which takes seconds.
TEN_CHANGES = [(method, "LoRA and LoKr") for method in METHODS]
TEN_CHANGES += [(method, name) for method in ("int8", "int4") for name in ("DoRA", "a difference")]
ROUNDED = {"a difference": [difference()], "a LoHa of high rank": [loha(rank=32)]}


@pytest.fixture
def quantized(flux_patcher, quantize):
    """``quantized(method)``: the one layer quantized, and its format."""

    def run(method):
        patcher = quantize(flux_patcher, method, preset=None, include=(LAYER,))
        return patcher, weight_of(patcher)._params.format

    return run


def weight_of(patcher):
    return patcher.model.diffusion_model.get_submodule(LAYER).weight


def with_adapters(patcher, adapters, strength=1.0):
    import comfy.lora

    patched = patcher.clone()
    keys = comfy.lora.model_lora_keys_unet(patcher.model, {})
    for adapter in adapters:
        state = {f"diffusion_model.{LAYER}.{name}": part for name, part in adapter.items()}
        assert patched.add_patches(comfy.lora.load_lora(state, keys), strength) == [KEY]
    return patched


def loaded(patcher):
    import comfy.model_management

    comfy.model_management.load_models_gpu([patcher])
    return weight_of(patcher)


def exact(patched, base):
    """fp32(W + change), as ComfyUI computes it."""
    import comfy.lora

    return comfy.lora.calculate_weight(patched.patches[KEY], base.float().clone(), KEY)


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("method", METHODS)
def test_what_stays_unfused_is_as_exact_as_if_it_were_baked_in(flux_patcher, quantized, method):
    base = weight_of(flux_patcher).float()
    patcher, fmt = quantized(method)
    for name, adapters in UNFUSED.items():
        patched = with_adapters(patcher, adapters)
        wanted = exact(patched, base)
        baked = relative(fmt.quantize(wanted).dequantize(), wanted)
        ours = relative(loaded(patched).dequantize(), wanted)
        assert relative(wanted, base) > 0.05, name
        assert ours <= 1.05 * baked, (name, ours, baked)


@pytest.mark.parametrize("method", METHODS)
def test_what_was_added_before_is_rounded_once(flux_patcher, quantize, method):
    base = weight_of(flux_patcher).float()
    for name, adapters in (UNFUSED | ROUNDED).items():
        patched = with_adapters(flux_patcher, adapters)
        weight = weight_of(quantize(patched, method, preset=None, include=(LAYER,)))
        once = weight._params.format.quantize(exact(patched, base)).dequantize()
        assert relative(weight.dequantize(), once) < 1e-6, name


@pytest.mark.parametrize("method", METHODS)
def test_what_is_rounded_again_is_rounded_to_nearest_from_the_pristine_codes(quantized, method):
    patcher, fmt = quantized(method)
    pristine = weight_of(patcher).dequantize()
    for name, adapters in ROUNDED.items():
        patched = with_adapters(patcher, adapters)
        expected = fmt.quantize(exact(patched, pristine)).dequantize()
        for strength in (0.5, 1.0):
            found = loaded(with_adapters(patcher, adapters, strength)).dequantize()
        assert torch.equal(found, expected), name


@pytest.mark.parametrize("method, name", TEN_CHANGES)
def test_ten_changes_drift_nowhere_and_end_bit_equal_to_never_loaded(quantized, method, name):
    patcher, _ = quantized(method)
    before = loaded(patcher).dequantize()
    adapters = (UNFUSED | ROUNDED)[name]
    strengths = [0.5 + 0.1 * change for change in range(9)] + [0.5]
    found = [loaded(with_adapters(patcher, adapters, s)).dequantize() for s in strengths]
    assert torch.equal(found[0], found[-1])
    assert not torch.equal(found[0], found[1])
    assert torch.equal(loaded(with_adapters(patcher, adapters, 0.0)).dequantize(), before)
    assert torch.equal(loaded(patcher).dequantize(), before)


@pytest.mark.parametrize("method", METHODS)
def test_two_loras_commute(quantized, method):
    patcher, _ = quantized(method)
    first, second = lora(), lora(seed=2, rank=16)
    one = loaded(with_adapters(patcher, [first, second])).dequantize()
    other = loaded(with_adapters(patcher, [second, first])).dequantize()
    assert relative(one, other) < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_a_change_a_thousand_times_smaller_than_the_weights_acts_whole(quantized, method):
    """Rounding would swallow it: half a step of int8 is larger."""
    patcher, _ = quantized(method)
    small = lora(scale=1e-3 * weight_of(patcher).dequantize().std().item() / 0.2)
    x = gaussian(64, K, seed=11, scale=1.0)

    def outputs(patcher):
        loaded(patcher)
        return patcher.model.diffusion_model.get_submodule(LAYER)(x)

    before = outputs(patcher)
    found = outputs(with_adapters(patcher, [small])) - before
    wanted = x @ (small["lora_up.weight"] @ small["lora_down.weight"]).T
    assert 0.9 < ((found * wanted).sum() / (wanted * wanted).sum()).item() < 1.1
    assert wanted.norm() < 5e-3 * before.norm()


@pytest.mark.parametrize("name", ["LoRA and LoKr", "DoRA"])
def test_a_partial_load_computes_what_a_full_load_computes(quantized, name):
    patcher, _ = quantized("int8")
    patched = with_adapters(patcher, UNFUSED[name])
    layer = patched.model.diffusion_model.get_submodule(LAYER)
    x = gaussian(8, K, seed=11, scale=1.0)
    loaded(patched)
    full = layer(x)
    patched.detach()
    patched.load(torch.device("cpu"), lowvram_model_memory=1)
    assert layer.weight_function
    assert relative(layer(x), full) < 1e-5
    patched.detach()


@pytest.mark.parametrize(
    "name, way",
    [
        ("LoRA and LoKr", "1 unfused, by the adapters' own factors"),
        ("a difference", "1 dequantized, patched and rounded again to nearest"),
    ],
)
def test_the_log_says_which_way_each_layer_went(quantized, caplog, name, way):
    patcher, _ = quantized("int8")
    with caplog.at_level(logging.INFO):
        loaded(with_adapters(patcher, (UNFUSED | ROUNDED)[name]))
    assert f"patches on quantized layers: {way}" in caplog.text
