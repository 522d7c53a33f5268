"""A configuration's dictionaries refuse every change, and come back from pickle and JSON."""

import copy
import pickle

import pytest
import torch

from graphquant.quant_core.config.frozen import FrozenDict, freeze, plain

NESTED = {"a": [1, {"b": [2]}], "c": {}}


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.__setitem__("a", 1),
        lambda d: d.__delitem__("a"),
        lambda d: d.update(a=1),
        lambda d: d.pop("a"),
        lambda d: d.popitem(),
        lambda d: d.setdefault("z", 1),
        lambda d: d.clear(),
        lambda d: d.__ior__({"z": 1}),
        lambda d: d["a"][1].update(b=3),
    ],
)
def test_every_change_is_refused_at_every_depth(change):
    frozen = freeze(NESTED)
    with pytest.raises(TypeError, match=r"cannot be changed. update\(...\) gives another one"):
        change(frozen)
    assert frozen == {"a": (1, {"b": (2,)}), "c": {}}


def test_a_copy_and_a_pickle_are_frozen_as_well():
    frozen = freeze(NESTED)
    for other in (copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        assert other == frozen and type(other) is FrozenDict and type(other["a"][1]) is FrozenDict


def test_plain_is_what_json_gives_back():
    assert plain(freeze(NESTED)) == NESTED
    assert plain({"dtype": torch.bfloat16}) == {"dtype": "bfloat16"}
    with pytest.raises(TypeError, match="function"):
        plain({"f": plain})
