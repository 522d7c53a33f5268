"""The table of methods, and its order."""

import pytest

from graphquant.quant_core.methods import METHODS, ORDER, VALID_METHODS, method

FIRST_METHODS = (
    *("none", "fp8-dynamic", "fp8-weight-only", "int8", "int4", "int8-dynamic", "int4-dynamic"),
    *("llm.int8", "nf4", "fp4", "int2", "int3", "int5", "int6", "fp6", "fp8-block", "mxfp8"),
    *("nvfp4", "fp8-static", "fastest"),
)


def test_methods_never_change_their_places_in_the_dropdown():
    assert VALID_METHODS[: len(FIRST_METHODS)] == FIRST_METHODS
    assert VALID_METHODS == ORDER == tuple(METHODS)


def test_a_method_takes_its_place_whenever_it_is_registered(monkeypatch):
    monkeypatch.setattr(method, "ORDER", (*ORDER, "later", "last"))
    monkeypatch.setattr(method, "METHODS", dict(METHODS))
    for name in ("last", "int8", "later"):
        method.register_method(name, "A trial.")(METHODS["int8"].choose)
    assert tuple(method.METHODS) == (*ORDER, "later", "last")


def test_a_method_without_a_place_is_refused():
    with pytest.raises(ValueError, match=r"'newest' has no place\. Append it to ORDER"):
        method.register_method("newest", "A trial.")
