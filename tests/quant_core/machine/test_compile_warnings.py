"""Methods against torch.compile modes: the whole table."""

import pytest

from graphquant.quant_core import COMPILE_MODES, VALID_METHODS, get_quant_compile_warnings

UNSAFE = {("fp8-dynamic", "reduce-overhead"), ("fp8-dynamic", "max-autotune")}


@pytest.mark.parametrize("mode", COMPILE_MODES)
@pytest.mark.parametrize("method", VALID_METHODS)
def test_only_dynamic_fp8_under_graph_capture_is_warned_of(method, mode):
    warnings = get_quant_compile_warnings(method, mode)
    assert len(warnings) == ((method, mode) in UNSAFE)
    for text in warnings:
        assert text.startswith(f"{method} with compile mode {mode} ")
        assert text.endswith("Use compile mode default, or fp8-weight-only.")


def test_the_modes_are_these_in_this_order():
    assert COMPILE_MODES[:4] == ("none", "default", "reduce-overhead", "max-autotune")
    assert COMPILE_MODES[4:] == ("max-autotune-no-cudagraphs",)


def test_without_a_mode_nothing_is_compiled():
    assert get_quant_compile_warnings("fp8-dynamic", None) == []


def test_an_alias_is_warned_of_as_its_method():
    direct = get_quant_compile_warnings("fp8-dynamic", "reduce-overhead")
    assert get_quant_compile_warnings("fp8", "reduce-overhead") == direct


@pytest.mark.parametrize(
    ("method", "mode", "message"),
    [
        ("fp8-dynamic", "max-autotun", r"^Unknown compile mode 'max-autotun'.*max-autotune\?"),
        ("fp9", "default", r"^Unknown method 'fp9'.*fp8"),
    ],
)
def test_an_unknown_name_is_an_error_that_names_the_nearest(method, mode, message):
    with pytest.raises(ValueError, match=message):
        get_quant_compile_warnings(method, mode)
