"""The copied tree is a second one over the same storage."""

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture
def copy_modules():
    from graphquant.nodes.bridge.copying.model_copy import copy_modules

    return lambda root: copy_modules(root, lambda name, parameter: parameter)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.first.weight
        self.again = self.first
        self.listed = [self.first]
        self.method = self.first.forward
        self.weight_function = ["a patch"]
        self.comfy_patched_weights = True
        self.register_buffer("table", torch.arange(3))

    def forward(self, x):
        return self.tied(self.method(x))


def test_parameters_share_storage_and_are_new_objects(copy_modules):
    old = Block()
    new = copy_modules(old)
    assert new.first.weight is not old.first.weight
    assert new.first.weight.data_ptr() == old.first.weight.data_ptr()
    assert new.table.data_ptr() == old.table.data_ptr()


def test_replacing_a_weight_of_the_copy_leaves_the_original(copy_modules):
    old = Block()
    x = torch.randn(2, 4)
    expected = old(x)
    new = copy_modules(old)
    new.first.weight = nn.Parameter(torch.zeros(4, 4))
    assert torch.equal(old(x), expected)
    assert not torch.equal(new(x), expected)


def test_shared_modules_and_tied_parameters_stay_so(copy_modules):
    new = copy_modules(Block())
    assert new.again is new.first
    assert new.tied.weight is new.first.weight


def test_references_between_modules_lead_into_the_copy(copy_modules):
    new = copy_modules(Block())
    assert new.listed[0] is new.first
    assert new.method.__self__ is new.first


def test_traces_of_a_loaded_model_are_not_copied(copy_modules):
    old = Block()
    new = copy_modules(old)
    assert new.weight_function == []
    assert not hasattr(new, "comfy_patched_weights")
    assert old.weight_function == ["a patch"]


def test_hooks_added_to_the_copy_do_not_reach_the_original(copy_modules):
    old = Block()
    new = copy_modules(old)
    new.register_forward_hook(lambda *_: torch.zeros(1))
    assert len(old._forward_hooks) == 0
