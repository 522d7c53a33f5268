"""One quantization in each library's own words: read, checked, written back without loss."""

import pytest

from graphquant.quant_core import ConfigError, plan_component
from graphquant.quant_core.config import (
    CONFIGS,
    BitsAndBytesConfig,
    Meaning,
    QuantConfig,
    QuantoConfig,
    TorchAoConfig,
)


def test_every_class_of_the_documents_is_here():
    assert {"torchao", "bitsandbytes", "quanto", "gguf", "modelopt", "fp8"} < set(CONFIGS)
    assert {name: kind.quant_method for name, kind in CONFIGS.items()} == {n: n for n in CONFIGS}


# A dictionary of each library, and what it means here.
MEANINGS = [
    ({"quant_method": "torchao", "quant_type": "int8wo"}, Meaning("int8wo")),
    (
        {
            "quant_method": "torchao",
            "quant_type": "int4wo",
            "quant_type_kwargs": {"group_size": 32},
        },
        Meaning("int4-g32"),
    ),
    (
        {
            "quant_method": "torchao",
            "quant_type": "uint3wo",
            "quant_type_kwargs": {"group_size": 32},
        },
        Meaning("int3-g32"),
    ),
    ({"quant_method": "torchao", "quant_type": "fp4"}, Meaning("fp4_e2m1")),
    ({"quant_method": "torchao", "quant_type": "fp6_e3w2"}, Meaning("fp6_e3w2")),
    (
        {"quant_method": "torchao", "quant_type": "fpx_weight_only", "ebits": 2, "mbits": 2},
        Meaning("fp5-e2m2"),
    ),
    (
        {"quant_method": "torchao", "quant_type": "uintx_weight_only", "dtype": "uint2"},
        Meaning("int2-g64"),
    ),
    (
        {"load_in_8bit": True, "llm_int8_skip_modules": ["proj"]},
        Meaning("llm.int8", exclude=("proj",)),
    ),
    ({"load_in_4bit": True}, Meaning("fp4")),
    (
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
        Meaning("nf4-double"),
    ),
    ({"quant_method": "quanto", "weights_dtype": "int2"}, Meaning("int2")),
    ({"quant_method": "modelopt", "quant_type": "FP8"}, Meaning("FP8", "per-tensor")),
    (
        {"quant_method": "modelopt", "quant_type": "INT8", "channel_quantize": 0},
        Meaning("INT8", "per-row"),
    ),
    (
        {"quant_method": "modelopt", "quant_type": "FP8_FP8", "weight_only": False},
        Meaning("FP8_FP8", "per-tensor"),
    ),
    (
        {"quant_method": "modelopt", "quant_type": "FP8_FP8", "calib_cfg": {"method": "max"}},
        Meaning(
            "FP8",
            "per-tensor",
            notes=(
                "FP8 of quant_type has no effect: weight_only is true, so that activations stay "
                "as they are.",
            ),
        ),
    ),
    ({"quant_method": "modelopt", "quant_type": "NVFP4"}, Meaning("NVFP4")),
    ({"method": "fp8"}, Meaning("fp8-dynamic")),
    (
        {"method": "fp8", "ignored_layers": ["img_mlp"]},
        Meaning("fp8-dynamic", exclude=("img_mlp",)),
    ),
    ({"method": "fp8", "weight_block_size": [128, 128]}, Meaning("fp8-block")),
    ({"quant_method": "fp8", "activation_scheme": "dynamic"}, Meaning("fp8-dynamic")),
    ({"method": "int4", "exclude": ["a.b"]}, Meaning("int4", exclude=("a.b",))),
    ({"quant_method": "graphquant", "method": "nf4"}, Meaning("nf4")),
]


@pytest.mark.parametrize(("values", "meaning"), MEANINGS, ids=lambda v: str(v)[:60])
def test_every_dictionary_comes_to_a_method_that_there_is(values, meaning):
    assert QuantConfig.from_dict(values).checked_meaning() == meaning


REFUSED = [
    ({"load_in_4bit": True, "load_in_8bit": True}, "are both true", ("load_in_8bit",)),
    ({"load_in_4bit": 1}, "load_in_4bit is 1. It has to be true or false.", ("load_in_4bit",)),
    ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf3"}, "Did you mean nf4", None),
    (
        {"load_in_4bit": True, "bnb_4bit_compute_dtype": "bf16"},
        "Did you mean bfloat16",
        ("bnb_4bit_compute_dtype",),
    ),
    ({"load_in_4bit": True, "bnb_4bit_quant_storage": "int64"}, "Did you mean", None),
    ({"load_in_8bit": True, "llm_int8_threshold": "6"}, "It has to be a number", None),
    ({"load_in_8bit": True, "llm_int8_skip_modules": "proj"}, "a list of names", None),
    (
        {"load_in_8bit": True, "llm_int8_skip_modules": ["a", 3]},
        "llm_int8_skip_modules is 3",
        ("llm_int8_skip_modules", 1),
    ),
    (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "_load_in_4bit": False},
        "differ",
        ("_load_in_4bit",),
    ),
    ({"quant_method": "bitsandbits"}, "Did you mean bitsandbytes", ("quant_method",)),
    ({"quant_method": "torchao"}, "needs quant_type", ()),
    ({"quant_method": "torchao", "quant_type": "int9wo"}, "Did you mean int8wo", None),
    ({"quant_method": "torchao", "quant_type": "nf4"}, "Unknown quant_type 'nf4'", None),
    ({"quant_method": "torchao", "quant_type": 8}, "It has to be a shorthand", None),
    (
        {"quant_method": "torchao", "quant_type": "fp6_e3m3"},
        "fp6_e3m3 cannot be: 3 exponent and 3 mantissa bits and a sign are 7 bits, not 6. "
        "Write fpX_eAmB with X = A + B + 1, such as fp6_e3m2.",
        ("quant_type",),
    ),
    (
        {"quant_method": "torchao", "quant_type": "int8wo", "group_size": 64},
        "Unknown option of int8wo 'group_size'",
        ("quant_type_kwargs", "group_size"),
    ),
    (
        {"quant_method": "torchao", "quant_type": "fpx_weight_only", "ebits": 3, "mbits": "2"},
        "mbits is '2'. It has to be 0 to 5.",
        ("quant_type_kwargs", "mbits"),
    ),
    (
        {"quant_method": "torchao", "quant_type": "fpx_weight_only", "ebits": 3, "mbits": 4},
        "ebits, mbits and a sign make 8 bits. Use 7 or fewer",
        ("quant_type_kwargs", "mbits"),
    ),
    (
        {"quant_method": "torchao", "quant_type": "uintx_weight_only", "dtype": "torch.uint9"},
        "dtype is 'uint9'. It has to be uint1 to uint7.",
        ("quant_type_kwargs", "dtype"),
    ),
    (
        {"quant_method": "torchao", "quant_type": "int4wo", "quant_type_kwargs": {"group": 64}},
        "Did you mean group_size",
        ("quant_type_kwargs", "group"),
    ),
    ({"quant_method": "quanto", "weights_dtype": "int3"}, "Valid: float8, int8, int4", None),
    ({"quant_method": "modelopt", "quant_type": "FP8_FP7"}, "type in quant_type 'FP7'", None),
    ({"quant_method": "modelopt", "quant_type": "FP8_FP8_FP8"}, "WEIGHT_ACTIVATION", None),
    (
        {"quant_method": "modelopt", "quant_type": "FP8", "block_quantize": 16},
        "needs channel",
        None,
    ),
    (
        {"quant_method": "modelopt", "quant_type": "FP8", "scale_block_quantize": 16},
        "is for NF4 and NVFP4",
        ("scale_block_quantize",),
    ),
    (
        {"quant_method": "modelopt", "quant_type": "FP8", "algorithm": "mes"},
        "Did you mean mse",
        None,
    ),
    ({"quant_method": "modelopt", "quant_type": "FP8", "forward_loop": "f"}, "to be null", None),
    (
        {"quant_method": "modelopt", "quant_type": "FP8", "weight_only": False},
        "names no type for activations. Write FP8_FP8",
        ("weight_only",),
    ),
    (
        {"quant_method": "modelopt", "quant_type": "FP8_INT8", "weight_only": False},
        "FP8_INT8 cannot be computed",
        ("quant_type",),
    ),
    (
        {"quant_method": "modelopt", "quant_type": "NF4_NF4", "weight_only": False},
        "NF4_NF4 cannot be computed",
        ("quant_type",),
    ),
    (
        {
            "quant_method": "modelopt",
            "quant_type": "FP8",
            "calib_cfg": {"method": "max"},
            "algorithm": "mse",
        },
        "differ",
        ("calib_cfg",),
    ),
    ({"method": "fp8", "activation_scheme": "fixed"}, "Valid: dynamic, static", None),
    ({"method": "fp8", "weight_block_size": [64, 64]}, "Only blocks of [128, 128]", None),
    (
        {"method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "static"},
        "leave one of them out",
        ("activation_scheme",),
    ),
    ({"method": "int9"}, "Did you mean int8", ("method",)),
    ({"method": "int8", "granularity": "row"}, "Valid: per-row, per-tensor", ("granularity",)),
    ({"quant_type": "FP8"}, "Nothing says which library's dictionary this is", ()),
    ({}, "Nothing says which library's dictionary this is", ()),
    ({"_class_name": "FluxTransformer2DModel"}, "has no quantization_config", ()),
    (
        {"quantization_config": {"quant_method": "quanto", "weights_dtype": "x"}},
        "Unknown value of weights_dtype 'x'",
        ("quantization_config", "weights_dtype"),
    ),
]


@pytest.mark.parametrize(("values", "message", "path"), REFUSED, ids=lambda v: str(v)[:60])
def test_what_cannot_be_is_a_value_error_with_the_remedy(values, message, path):
    with pytest.raises(ValueError) as error:
        QuantConfig.from_dict(values)
    assert isinstance(error.value, ConfigError)
    assert message in str(error.value) and "\n" not in str(error.value)
    if path is not None:
        assert error.value.path == path


# What can be written, and is not a method here.
WITHOUT_A_METHOD = [
    ({"quant_method": "gguf"}, "Load the file with Load Quantized Model"),
    ({"quant_method": "torchao", "quant_type": "fpx_weight_only"}, "does not say how many bits"),
]


@pytest.mark.parametrize(("values", "message"), WITHOUT_A_METHOD, ids=lambda v: str(v)[:60])
def test_what_comes_to_nothing_says_so(values, message):
    config = QuantConfig.from_dict(values)
    with pytest.raises(ConfigError, match=message):
        config.checked_meaning()


def test_settings_without_effect_are_noted():
    notes = (
        BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=4.0, llm_int8_has_fp16_weight=True)
        .meaning()
        .notes
    )
    assert [note.split()[0] for note in notes] == ["llm_int8_threshold", "llm_int8_has_fp16_weight"]
    assert BitsAndBytesConfig(load_in_8bit=True).meaning().notes == ()
    (note,) = BitsAndBytesConfig().meaning().notes
    assert "both false" in note and BitsAndBytesConfig().meaning().method == "none"


def test_unused_kwargs_are_given_back_or_refused():
    values = {"quant_method": "quanto"}
    config, unused = QuantConfig.from_dict(values, True, weights_dtype="int4", revision="main")
    assert (config, unused) == (QuantoConfig("int4"), {"revision": "main"})
    assert QuantConfig.from_dict(values, weights_dtype="int4") == QuantoConfig("int4")
    with pytest.raises(ConfigError, match="Unknown key of quanto 'weight_dtype'"):
        QuantConfig.from_dict(values, weight_dtype="int4")


def test_an_update_is_another_value_and_what_it_could_not_use():
    config = QuantoConfig()
    assert config.update(weights_dtype="int2", device="cpu") == (
        QuantoConfig("int2"),
        {"device": "cpu"},
    )
    assert config == QuantoConfig("int8")
    with pytest.raises(ConfigError):
        config.update(weights_dtype="int1")
    with pytest.raises(AttributeError):
        config.weights_dtype = "int2"


def test_a_list_that_is_null_is_the_default():
    config = QuantConfig.from_dict({"method": "fp8", "ignored_layers": None})
    assert config == QuantConfig.from_dict({"method": "fp8", "weight_block_size": None})


def test_modules_to_not_convert_are_whole_parts_of_names(transformer):
    meaning = TorchAoConfig("int8wo", modules_to_not_convert=["blocks.0", "norm"]).meaning()
    plan = plan_component(transformer, meaning.method, exclude=meaning.exclude)
    kept = {layer.name for layer in plan.layers if "exclude" in layer.reason}
    assert kept == {
        name for layer in plan.layers if (name := layer.name).startswith("blocks.0.")
    } - {"blocks.0.norm1.linear"}
    assert {"blocks.1.normal_proj", "vace_blocks.0"} <= {layer.name for layer in plan.quantized}
