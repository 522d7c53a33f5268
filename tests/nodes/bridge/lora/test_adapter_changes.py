"""The change read from ComfyUI's adapters is the one that ComfyUI makes with them."""

import pytest
import torch

pytestmark = pytest.mark.usefixtures("comfy")

CPU = torch.device("cpu")
SHAPE = (96, 128)


def gaussian(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lora(n=96, k=128, rank=4, seed=0, alpha=None, dora=None):
    from comfy.weight_adapter.lora import LoRAAdapter

    up, down = gaussian(n, rank, seed=seed), gaussian(rank, k, seed=seed + 100)
    return LoRAAdapter(set(), (up, down, alpha, None, dora, None))


def loha(rank=3, seed=0, alpha=None, dora=None):
    from comfy.weight_adapter.loha import LoHaAdapter

    ups = [gaussian(96, rank, seed=seed + i) for i in (0, 1)]
    downs = [gaussian(rank, 128, seed=seed + i) for i in (2, 3)]
    return LoHaAdapter(set(), (ups[0], downs[0], alpha, ups[1], downs[1], None, None, dora))


def lokr(seed=0, alpha=None, decomposed=(False, False), a=8, b=4, dora=None):
    """w1 [a, b], w2 [96 / a, 128 / b], each whole or a product of rank 2."""
    from comfy.weight_adapter.lokr import LoKrAdapter

    pairs = []
    for index, (n, k) in enumerate([(a, b), (96 // a, 128 // b)]):
        if decomposed[index]:
            factors = (gaussian(n, 2, seed=seed + index), gaussian(2, k, seed=seed + 9 + index))
            pairs.append((None, *factors))
        else:
            pairs.append((gaussian(n, k, seed=seed + index), None, None))
    (w1, w1_a, w1_b), (w2, w2_a, w2_b) = pairs
    return LoKrAdapter(set(), (w1, w2, alpha, w1_a, w1_b, w2_a, w2_b, None, dora))


def glora():
    from comfy.weight_adapter.glora import GLoRAAdapter

    weights = [gaussian(128, 4, seed=1), gaussian(96, 4, seed=2)]
    weights += [gaussian(4, 128, seed=3), gaussian(4, 128, seed=4)]
    return GLoRAAdapter(set(), (*weights, 1.0, None))


def patch(adapter, strength=1.0, offset=None):
    return (strength, adapter, 1.0, offset, None)


def rows():
    return gaussian(96, 1, seed=50).abs() * 10


def columns():
    return gaussian(1, 128, seed=51).abs() * 10


def change_of(patches, shape=SHAPE, base=None):
    from graphquant.nodes.bridge.lora.adapter_changes import adapter_change

    return adapter_change(patches, shape, CPU, base)


KNOWN = {
    "LoRA": lambda: [patch(lora())],
    "LoRA, negative": lambda: [patch(lora(), -0.3)],
    "LoRA, alpha": lambda: [patch(lora(alpha=2.0))],
    "LoRA on rows": lambda: [patch(lora(n=32), offset=(0, 64, 32))],
    "LoRA on columns": lambda: [patch(lora(k=32), offset=(1, 16, 32))],
    "LoRAs of two ranks": lambda: [patch(lora()), patch(lora(rank=8, seed=2), 0.5)],
    "the same LoRA twice": lambda: [patch(lora()), patch(lora())],
    "LoHa": lambda: [patch(loha(alpha=2.0), 0.7)],
    "LoKr": lambda: [patch(lokr(alpha=2.0), 0.7)],
    "LoKr, decomposed": lambda: [patch(lokr(alpha=3.0, decomposed=(True, True)))],
    "LoKr, half": lambda: [patch(lokr(alpha=3.0, decomposed=(False, True)))],
    "the same LoKr twice": lambda: [patch(lokr(), 0.5), patch(lokr())],
    "LoRA and LoKr": lambda: [patch(lora()), patch(lokr())],
    "LoKr and LoHa": lambda: [patch(lokr()), patch(loha())],
    "DoRA by rows": lambda: [patch(lora(alpha=2.0, dora=rows()), 0.7)],
    "DoRA by columns": lambda: [patch(lora(alpha=2.0, dora=columns()), 0.7)],
    "DoRA of a LoHa": lambda: [patch(loha(dora=rows()))],
    "LoRA, DoRA, LoRA": lambda: [patch(lora()), patch(lora(seed=2, dora=rows())), patch(lora())],
    "two DoRAs": lambda: [patch(lora(dora=rows()), 0.5), patch(lora(seed=2, dora=columns()))],
    "DoRA and LoKr": lambda: [patch(lora(dora=rows())), patch(lokr())],
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_change_is_what_comfyui_makes_of_the_weight(name):
    import comfy.lora

    patches, base = KNOWN[name](), gaussian(*SHAPE, seed=9)
    expected = comfy.lora.calculate_weight(patches, base.clone(), "key")
    found = change_of(patches, base=base).apply(base)
    assert (found - expected).norm() < 1e-6 * expected.norm()
    assert (expected - base).norm() > 0.1 * base.norm()


def test_the_ranks_of_several_loras_add_up():
    change = change_of([patch(lora(rank=4)), patch(lora(rank=8, seed=1)), patch(loha(rank=3))])
    assert change.lora_up.shape == (96, 21) and change.lora_down.shape == (21, 128)


UNKNOWN = {
    "none": lambda: [],
    "a full difference": lambda: [patch(lora()), patch(("diff", (torch.ones(SHAPE),)))],
    "GLoRA": lambda: [patch(glora())],
    "another shape": lambda: [patch(lora(k=127))],
    "LoKr, then DoRA": lambda: [patch(lokr()), patch(lora(dora=rows()))],
    "DoRA of a LoKr": lambda: [patch(lokr(dora=rows()))],
    "LoKrs of two shapes": lambda: [patch(lokr()), patch(lokr(a=4))],
    "a LoHa of high rank": lambda: [patch(loha(rank=20))],
    "LoKr on rows": lambda: [patch(lokr(), offset=(0, 0, 96))],
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_such_a_change_is_none(name):
    assert change_of(UNKNOWN[name](), base=gaussian(*SHAPE, seed=9)) is None


def test_a_dora_without_the_weight_is_none():
    assert change_of([patch(lora(dora=rows()))]) is None
