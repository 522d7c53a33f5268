"""Text becomes a configuration, or an error that points at the character."""

import pytest

from graphquant.quant_core import ConfigError
from graphquant.quant_core.config import (
    BitsAndBytesConfig,
    GraphQuantConfig,
    QuantoConfig,
    config_from_text,
)


def test_a_name_is_a_method_whatever_stands_around_it():
    assert config_from_text(" nf4\n") == GraphQuantConfig("nf4")
    assert config_from_text("fp6_e3m2") == GraphQuantConfig("fp6_e3m2")


def test_json_is_a_dictionary_of_some_library():
    assert config_from_text('{"quant_method": "quanto"}') == QuantoConfig()
    text = '{"_class_name": "X", "quantization_config": {"load_in_4bit": true}}'
    assert config_from_text(text) == BitsAndBytesConfig(load_in_4bit=True)


# The text with a mark before the character that is wrong, and the message.
POINTED = [
    ("int@9", "Unknown method 'int9'. Did you mean int8"),
    ("  \n float8wo_e@9m3", "Unknown method 'float8wo_e9m3'."),
    ('{"a": 1,@}', "This is not JSON: Expecting property name"),
    ('{"method": "int4"@', "This is not JSON: Expecting ',' delimiter."),
    ('{\n  "quant_method": @"quant"\n}', "Unknown quant_method 'quant'. Did you mean quanto"),
    ('{"method": @"int9",\n "exclude": []}', "Unknown method 'int9'."),
    ('{"method": "int4", "exclude": ["a", @3]}', "exclude is 3."),
    ('{"method": "int4",\n\t@"method": "int8"}', "The key 'method' occurs twice."),
    (
        '{"load_in_4bit": true, @"bnb_4bit_type": "nf4", "quant_method": "bitsandbytes"}',
        "Unknown key of bitsandbytes 'bnb_4bit_type'. Did you mean bnb_4bit_quant_type",
    ),
    ('{"load_in_4bit": true, "load_in_8bit": @true}', "are both true"),
    (
        '{"quantization_config": {"quant_method": "quanto", "weights_dtype": @"int3"}}',
        "Unknown value of weights_dtype 'int3'.",
    ),
    (
        '{"quant_method": "torchao", "quant_type": "int4wo",\r\n'
        ' "quant_type_kwargs": {@"groups": 32}}',
        "Unknown option of int4wo 'groups'.",
    ),
    (
        '{"quant_method": "torchao", "quant_type": "uint3wo", "group_size": @0}',
        "group_size is 0.",
    ),
    (
        '{"quantization_config": {"quant_method": "torchao", "quant_type": "uint3wo",'
        ' @"groups": 32}}',
        "Unknown key of torchao 'groups'.",
    ),
    (
        '{"quant_method": "modelopt", "quant_type": @"FP8_INT8", "weight_only": false}',
        "FP8_INT8 cannot be computed",
    ),
    ('@["int4"]', "A configuration is an object"),
    ('@{"quant_method": "gguf"}', "Load the file with Load Quantized Model"),
    ("@{}", "Nothing says which library's dictionary this is"),
    ('{@"x": 1}', "No library has the key 'x'. Add"),
    ('{@"load_in_4bits": true}', "Did you mean load_in_4bit of bitsandbytes?"),
    ('{"method": "fp8", @"ignored": ["a"]}', "Did you mean ignored_layers of fp8?"),
    ('{@"weight_dtype": "int4"}', "Did you mean weights_dtype of quanto?"),
    ('{"quant_type": "int4wo", @"groupsize": 64}', "Did you mean group_size of torchao?"),
    ('{"quant_type": "FP8", @"channel_quantise": 0}', "Did you mean channel_quantize of modelopt?"),
    ('{"quantization_config": {@"load_in_8bits": true}}', "Did you mean load_in_8bit of bitsand"),
    ('{"method": @["fp8"]}', "Unknown method ['fp8']."),
    ('{"quant_method": @{"a": 1}}', "Unknown quant_method {'a': 1}."),
    ('{"quant_method": "torchao", "quant_type": @["int8wo"]}', "It has to be a shorthand"),
    ('{"method": "int8", "granularity": @["per-row"]}', "Valid: per-row, per-tensor"),
    ('{"quant_method": "modelopt", "quant_type": @["FP8"]}', "Unknown type in quant_type ['FP8']"),
    (
        '{"quant_method": "torchao", "quant_type": {"_type": @["X"]}}',
        "Unknown torchao type ['X'].",
    ),
]


@pytest.mark.parametrize(("marked", "message"), POINTED, ids=[message for _, message in POINTED])
def test_an_error_points_at_the_character(marked, message):
    before, _, after = marked.partition("@")
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    with pytest.raises(ConfigError) as error:
        config_from_text(before + after)
    first, shown, caret = str(error.value).split("\n")
    assert first.startswith(f"Line {line}, column {column}, at ") and message in first
    assert shown == (before + after).split("\n")[line - 1].rstrip("\r")
    assert caret == " " * (column - 1) + "^"
    wrong = shown[column - 1 :].strip()[:10]
    assert wrong in first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "There is no text. Write a method, such as nf4"),
        (" \n ", "There is no text."),
        ("x" * 2_000_000, "The text has 2000000 characters"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=["empty", "spaces", "long", "deep"],
)
def test_text_without_a_place_to_point_at_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        config_from_text(text)
