"""A change beside the codes computes what the changed weight computes."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

pytestmark = pytest.mark.usefixtures("comfy")

N, K = 24, 40


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parts(*names):
    every = {
        "row_gain": gaussian(N, 1, seed=1),
        "column_gain": gaussian(1, K, seed=2),
        "lora_up": gaussian(N, 3, seed=3),
        "lora_down": gaussian(3, K, seed=4),
        "kron_left": gaussian(2, 4, 5, seed=5),
        "kron_right": gaussian(2, 6, 8, seed=6),
    }
    return {name: every[name] for name in names or every}


CHANGES = [
    parts("row_gain"),
    parts("column_gain"),
    parts("lora_up", "lora_down"),
    parts("kron_left", "kron_right"),
    parts(),
]


@pytest.mark.parametrize("kept", CHANGES, ids=lambda kept: ",".join(kept))
@pytest.mark.parametrize("bias", [None, gaussian(N, seed=7)], ids=["no bias", "bias"])
def test_linear_multiplies_by_the_weight_that_apply_gives(kept, bias):
    from graphquant.nodes.bridge.lora.changes import Change

    change, weight, x = Change(**kept), gaussian(N, K, seed=8), gaussian(2, 7, K, seed=9)
    y = change.linear(x, bias, lambda x, bias: F.linear(x, weight, bias))
    assert y.shape == (2, 7, N)
    assert torch.allclose(y, F.linear(x, change.apply(weight), bias), atol=1e-4)


def test_a_low_rank_product_is_added_where_the_layers_lies():
    """A new tensor would be written and read once more."""
    from graphquant.nodes.bridge.lora.changes import Change

    change, x, y = Change(**parts("lora_up", "lora_down")), gaussian(2, 7, K), gaussian(2, 7, N)
    expected = y + F.linear(F.linear(x, change.lora_down), change.lora_up)
    result = change.add_branches(x, y)
    assert result.data_ptr() == y.data_ptr()
    assert torch.allclose(result, expected, atol=1e-4)


def test_apply_leaves_the_weight_as_it_was():
    from graphquant.nodes.bridge.lora.changes import Change

    weight = gaussian(N, K)
    before = weight.clone()
    assert not torch.equal(Change(**parts()).apply(weight), before)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("kept", CHANGES, ids=lambda kept: ",".join(kept))
@pytest.mark.parametrize("rows", [1, 5, N])
def test_a_distance_is_measured_some_rows_at_a_time(kept, rows, monkeypatch):
    from graphquant.nodes.bridge.lora import changes

    monkeypatch.setattr(changes, "_BLOCK", rows * K)
    change, before, after = changes.Change(**kept), gaussian(N, K, seed=8), gaussian(N, K, seed=9)
    exact = (after - change.apply(before)).norm().item()
    assert change.distance(before, after) == pytest.approx(exact, rel=1e-5)
    assert change.distance(before, after.half(), limit=1.01 * exact) < 1.01 * exact
    assert change.distance(before, after, limit=0.99 * exact) == float("inf")
    assert change.distance(before, change.apply(before)) < 1e-4


class Sizes(TorchDispatchMode):
    """The most elements of any tensor that is made."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made._base is None:
            self.most = max(self.most, made.numel())
        return made


def test_looking_for_a_change_takes_no_float32_copy_of_the_weight(monkeypatch):
    from graphquant.nodes.bridge.lora import changes

    monkeypatch.setattr(changes, "_BLOCK", 2 * K)
    change, before = changes.Change(**parts("lora_up", "lora_down")), gaussian(N, K).half()
    after = change.apply(before)
    with Sizes() as sizes:
        change.distance(before, after)
    assert sizes.most == 2 * K


def test_what_has_no_part_of_a_change_has_none():
    from graphquant.nodes.bridge.lora.changes import Change

    assert Change.of(Change()) is None
    assert Change.of(Change(**parts())) is not None
