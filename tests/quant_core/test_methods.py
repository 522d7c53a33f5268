"""Names of methods, and the format that each gives a layer."""

import pytest

from graphquant.quant_core import ALIASES, METHODS, VALID_METHODS, Hardware, resolve_method
from graphquant.quant_core.errors import QuantizationError, UnknownNameError
from graphquant.quant_core.formats import Float8, Int4, Int8
from graphquant.quant_core.methods import method_for

ALIASES_FOR_EVER = {
    "fp8": "fp8-dynamic",
    "fp8-filtered": "fp8-weight-only",
    "diffsynth-fp8": "fp8-dynamic",
    "8bit": "int8",
    "4bit": "int4",
    "int8wo": "int8",
    "int8_weight_only": "int8",
    "int8dq": "int8-dynamic",
    "int8_dynamic_activation_int8_weight": "int8-dynamic",
    "int4wo": "int4",
    "int4_weight_only": "int4",
    "float8wo": "fp8-weight-only",
    "float8wo_e4m3": "fp8-weight-only",
    "float8_weight_only": "fp8-weight-only",
    "float8dq": "fp8-dynamic",
    "float8dq_e4m3": "fp8-dynamic",
    "float8dq_e4m3_row": "fp8-dynamic",
    "float8_dynamic_activation_float8_weight": "fp8-dynamic",
}


def choose(method, shape, granularity="per-row"):
    return METHODS[method].choose(shape, granularity)


def test_the_first_six_methods_keep_their_places_for_ever():
    first = ("none", "fp8-dynamic", "fp8-weight-only", "int8", "int4", "int8-dynamic")
    assert VALID_METHODS[:6] == first


@pytest.mark.parametrize("method", VALID_METHODS)
def test_a_method_resolves_to_itself_and_says_what_it_is(method):
    assert resolve_method(method) == method
    assert METHODS[method].name == method
    assert METHODS[method].summary.endswith(".")


@pytest.mark.parametrize(("alias", "method"), ALIASES_FOR_EVER.items())
def test_an_alias_resolves_to_its_method_for_ever(alias, method):
    assert resolve_method(alias) == method


def test_no_alias_hides_a_method_or_leads_nowhere():
    assert not set(ALIASES) & set(VALID_METHODS)
    assert set(ALIASES.values()) <= set(VALID_METHODS)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("int9", "int8"), ("fp8-dinamic", "fp8-dynamic"), ("INT4", "int4"), ("float8dk", "float8dq")],
)
def test_an_unknown_method_is_named_with_the_nearest_valid_ones(name, nearest):
    with pytest.raises(UnknownNameError) as caught:
        resolve_method(name)
    first_line = str(caught.value).splitlines()[0]
    guesses, _, valid = first_line.partition("Valid: ")
    assert guesses.startswith(f"Unknown method {name!r}. Did you mean {nearest}")
    assert valid.rstrip(".").split(", ") == [*VALID_METHODS, *ALIASES]
    assert isinstance(caught.value, QuantizationError)


@pytest.mark.parametrize("name", ["", "xyz", 8])
def test_a_name_like_no_other_is_refused_without_a_guess(name):
    with pytest.raises(ValueError, match=rf"^Unknown method {name!r}\. Valid: none, fp8-dynamic"):
        resolve_method(name)


@pytest.mark.parametrize("granularity", ["per-row", "per-tensor"])
@pytest.mark.parametrize("shape", [(256, 512), (1, 3), (24, 64)])
def test_the_weight_only_methods_take_every_shape(granularity, shape):
    assert choose("int8", shape, granularity).format == Int8(granularity)
    assert choose("fp8-weight-only", shape, granularity).format == Float8(granularity=granularity)
    assert choose("int8", shape, granularity).note == ""


@pytest.mark.parametrize("granularity", ["per-row", "per-tensor"])
def test_fp8_dynamic_runs_weight_only_where_k_or_n_is_not_in_sixteens(granularity):
    fits = choose("fp8-dynamic", (32, 48), granularity)
    assert fits.format == Float8(granularity=granularity, activations="float8_e4m3fn")
    assert fits.note == ""
    for shape in ((24, 48), (32, 40)):
        choice = choose("fp8-dynamic", shape, granularity)
        assert choice.format == Float8(granularity=granularity)
        assert choice.note.startswith(f"weight-only: {shape[0]} x {shape[1]} is not in sixteens")


def test_int8_dynamic_quantizes_activations_but_where_k_is_one():
    assert choose("int8-dynamic", (24, 7)).format == Int8(activations="int8")
    choice = choose("int8-dynamic", (24, 1))
    assert choice.format == Int8()
    assert "weight-only" in choice.note and "K = 1" in choice.note


@pytest.mark.parametrize(("columns", "group"), [(3072, 128), (320, 64), (96, 32)])
def test_int4_takes_the_largest_group_that_divides_k(columns, group):
    assert choose("int4", (8, columns)).format == Int4(group)


def test_int4_keeps_a_layer_whose_k_no_group_divides_and_says_so():
    choice = choose("int4", (8, 48))
    assert choice.format is None
    assert choice.note == "no INT4 group size (128, 64, 32) divides K = 48"


def test_fp8_dynamic_falls_back_by_name_where_fp8_is_not_multiplied(fp8_hardware):
    method, why = method_for("fp8-dynamic", fp8_hardware)
    assert (method.name, why) == ("fp8-dynamic", None)
    method, why = method_for("fp8-dynamic", Hardware("cuda", "RTX 3090", fp8_matmul=False))
    assert method.name == "fp8-weight-only"
    assert "fp8-dynamic" in why and "RTX 3090" in why and "fp8-weight-only runs instead" in why


@pytest.mark.parametrize("name", [name for name in VALID_METHODS if name != "fp8-dynamic"])
def test_every_other_method_runs_anywhere(name, cpu):
    method, why = method_for(name, cpu)
    assert (method.name, why) == (name, None)
