"""Names of methods, and the format that each gives a layer."""

import pytest
from torch import nn

from graphquant.quant_core import (
    ALIASES,
    METHODS,
    VALID_METHODS,
    Hardware,
    plan_component,
    resolve_method,
)
from graphquant.quant_core.errors import (
    QuantizationError,
    UnknownNameError,
    UnsupportedMethodError,
)
from graphquant.quant_core.formats import (
    NVFP4,
    Code4,
    Float8,
    FloatX,
    Int4,
    Int4Dynamic,
    Int8,
    IntN,
    LlmInt8,
)
from graphquant.quant_core.methods import method_for, named_method
from graphquant.quant_core.methods.aliases import GRANULARITY, NOTES, REFUSED

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
    "float8wo": "fp8-e5m2",
    "float8wo_e4m3": "fp8-weight-only",
    "float8_weight_only": "fp8-weight-only",
    "float8dq": "fp8-dynamic",
    "float8dq_e4m3": "fp8-dynamic",
    "float8dq_e4m3_row": "fp8-dynamic",
    "float8_dynamic_activation_float8_weight": "fp8-dynamic",
}


def choose(method, shape, granularity="per-row"):
    return METHODS[method].choose(shape, granularity)


@pytest.mark.parametrize("method", VALID_METHODS)
def test_a_method_resolves_to_itself_and_says_what_it_is(method):
    assert resolve_method(method) == method
    assert METHODS[method].name == method
    assert METHODS[method].summary.endswith(".")


@pytest.mark.parametrize(("alias", "method"), ALIASES_FOR_EVER.items())
def test_an_alias_resolves_to_its_method_for_ever(alias, method):
    assert resolve_method(alias) == method


def test_no_alias_hides_a_method_or_leads_nowhere():
    assert not set(ALIASES) & (set(VALID_METHODS) | set(REFUSED))
    assert {resolve_method(method) for method in ALIASES.values()} == set(ALIASES.values())
    assert set(GRANULARITY) | set(NOTES) <= set(ALIASES)


# Every name that the documents of diffusers, bitsandbytes, Quanto, ModelOpt and vLLM-Omni give.
DOCUMENTED = {
    "int4dq": Int4Dynamic(),
    "int8_dynamic_activation_int4_weight": Int4Dynamic(),
    "int_a16w4": Int4(128),
    "int_a8w4": Int4Dynamic(),
    "int_a16w8": Int8(),
    "int_a8w8": Int8(activations="int8"),
    "float8wo_e5m2": Float8("float8_e5m2"),
    "float8_e5m2_a16w8": Float8("float8_e5m2"),
    "float8_e4m3_a16w8": Float8(),
    "float_a16w8": Float8(),
    "float_a8w8": Float8(activations="float8_e4m3fn"),
    "fp6_e3m2": FloatX(3, 2),
    "fp6_e3w2": FloatX(3, 2),
    "fp3_e1m1": FloatX(1, 1),
    "fp7_e6m0": FloatX(6, 0),
    "fp5": FloatX(2, 2),
    "float_a16w3": FloatX(1, 1),
    "float_a16w4": FloatX(2, 1),
    "float_a16w5": FloatX(2, 2),
    "float_a16w6": FloatX(3, 2),
    "float_a16w7": FloatX(3, 3),
    "uintx_weight_only": Int4(64),
    **{f"uint{bits}wo": IntN(bits) for bits in (1, 2, 3, 5, 6, 7)},
    **{f"uint_a16w{bits}": IntN(bits) for bits in (1, 2, 3, 5, 6, 7)},
    "uint4wo": Int4(64),
    "uint_a16w4": Int4(64),
    "nf4": Code4("nf4"),
    "fp4": Code4("fp4"),
    "nf4-double": Code4("nf4", double_quant=True),
    "llm.int8": LlmInt8(),
    "float8": Float8(),
    "int2": IntN(2),
    "FP8": Float8(),
    "INT8": Int8(),
    "INT4": Int4(128),
    "NF4": Code4("nf4"),
    "INT8_INT8": Int8(activations="int8"),
    "INT4_INT8": Int4Dynamic(),
    "NVFP4": NVFP4(),
    "NVFP4_NVFP4": NVFP4("nvfp4"),
}


@pytest.mark.parametrize(("name", "fmt"), DOCUMENTED.items())
def test_a_name_of_the_documents_stores_what_it_says(name, fmt):
    assert named_method(name).method.choose((256, 512), "per-row").format == fmt


@pytest.mark.parametrize(
    ("name", "fmt"),
    [
        ("int3-g32", IntN(3, 32)),
        ("int4-g64", Int4(64)),
        ("int4-symmetric", IntN(4, 64, symmetric=True)),
        ("int7-symmetric-g128", IntN(7, 128, symmetric=True)),
        ("fp6-e2m3", FloatX(2, 3)),
        ("fp4-double", Code4("fp4", double_quant=True)),
        ("fp8-e5m2", Float8("float8_e5m2")),
    ],
)
def test_a_method_may_have_numbers_in_its_name(name, fmt):
    assert resolve_method(name) == name
    assert named_method(name).method.choose((256, 512), "per-row").format == fmt


def test_a_name_that_says_a_granularity_overrides_the_argument(cpu):
    model = nn.Sequential(nn.Linear(64, 64, device="meta"))
    for name, expected in (("float8dq_e4m3_tensor", "per-tensor"), ("float8dq_row", "per-row")):
        for argument in ("per-row", "per-tensor"):
            plan = plan_component(model, name, granularity=argument, hardware=cpu)
            assert plan.granularity == plan.layers[0].format.granularity == expected
    assert plan_component(
        model, "float8dq", granularity="per-tensor", hardware=cpu
    ).granularity == ("per-tensor")


def test_float8wo_means_e5m2_as_in_diffusers_and_says_so(cpu):
    plan = plan_component(nn.Sequential(nn.Linear(64, 64)), "float8wo", hardware=cpu)
    assert plan.layers[0].format == Float8("float8_e5m2")
    assert plan.warnings == (NOTES["float8wo"],) and "float8wo_e4m3" in plan.warnings[0]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_had_is_refused_in_one_sentence_and_a_remedy(name):
    with pytest.raises(UnsupportedMethodError) as caught:
        resolve_method(name)
    text = str(caught.value)
    assert text.startswith(name) and text.endswith(".") and "\n" not in text
    assert "Choose " in text or "Write " in text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fp6-e3m3", "3 exponent and 3 mantissa bits and a sign are 7 bits, not 6"),
        ("fp6_e3m4", "bits and a sign are 8 bits, not 6. Write fpX_eAmB with X = A"),
        ("fp2-e1m0", "not a format of 3 to 7 bits"),
        ("fp1_e0w0", "not a format of 3 to 7 bits"),
        ("int1-symmetric", "2 to 7 bits"),
    ],
)
def test_impossible_numbers_in_a_name_are_refused_with_the_reason(name, reason):
    with pytest.raises(UnsupportedMethodError, match=reason):
        resolve_method(name)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("int9", "int8"),
        ("fp8-dinamic", "fp8-dynamic"),
        ("NVFP5", "nvfp4"),
        ("float8dk", "float8dq"),
        ("uint8wo", "int8wo"),
        ("fp6_e3m", "fp6_e3m2"),
    ],
)
def test_an_unknown_method_is_named_with_the_nearest_valid_ones(name, nearest):
    with pytest.raises(UnknownNameError) as caught:
        resolve_method(name)
    first_line = str(caught.value).splitlines()[0]
    guesses, _, valid = first_line.partition("Valid: ")
    assert guesses.startswith(f"Unknown method {name!r}. Did you mean {nearest}")
    assert valid.rstrip(".").split(", ") == [*VALID_METHODS]
    assert isinstance(caught.value, QuantizationError)


@pytest.mark.parametrize("name", ["", "xyz", 8])
def test_a_name_like_no_other_is_refused_without_a_guess(name):
    with pytest.raises(ValueError, match=rf"^Unknown method {name!r}\. Valid: none, fp8-dynamic"):
        resolve_method(name)


@pytest.mark.parametrize(
    "method", [name for name in VALID_METHODS[:18] if METHODS[name].weight_only]
)
def test_a_weight_only_counterpart_rounds_no_activations_and_costs_no_more(method):
    own = choose(method, (256, 512)).format
    other = named_method(METHODS[method].weight_only).method.choose((256, 512), "per-row").format
    assert own.activations and getattr(other, "activations", None) is None
    assert other.nbytes((256, 512)) <= 1.01 * own.nbytes((256, 512))


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
