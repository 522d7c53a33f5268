"""Texts that are nearly a configuration: each is one, or is refused with its place."""

import copy
import json
import random

import pytest

from graphquant.quant_core import ConfigError, DefaultsConfig, QuantConfig, config_from_text
from graphquant.quant_core.errors import QuantizationError

TORCHAO = {
    "_type": "IntxWeightOnlyConfig",
    "_data": {
        "weight_dtype": {"_type": "torch.dtype", "_data": "int4"},
        "granularity": {"_type": "PerGroup", "_data": {"group_size": 32}},
        "mapping_type": {"_type": "MappingType", "_data": "SYMMETRIC"},
    },
}
SEEDS = (
    {"quant_method": "torchao", "quant_type": "int4wo", "quant_type_kwargs": {"group_size": 64}},
    {"quant_method": "torchao", "quant_type": {"default": TORCHAO}},
    {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "llm_int8_skip_modules": ["x"]},
    {"quant_method": "quanto", "weights_dtype": "int4"},
    {"quant_method": "modelopt", "quant_type": "FP8_FP8", "calib_cfg": {"method": "max"}},
    {"method": "fp8", "ignored_layers": ["img_mlp"], "weight_block_size": [128, 128]},
    {"_class_name": "X", "quantization_config": {"method": "int4", "exclude": ["b"]}},
)
VALUES = (
    None,
    True,
    0,
    -1,
    1e308,
    10**400,
    "",
    "int8wo",
    "x" * 500,
    [],
    ["fp8"],
    {},
    {"_type": [1]},
)


def places(value, path=()):
    inside = value.items() if isinstance(value, dict) else ()
    inside = enumerate(value) if isinstance(value, list) else inside
    for key, item in inside:
        yield (*path, key)
        yield from places(item, (*path, key))


def mutated(choose):
    values = copy.deepcopy(choose.choice(SEEDS))
    for _ in range(choose.choice((1, 1, 2, 3))):
        found = list(places(values))
        if not found:
            break
        *path, key = choose.choice(found)
        holder = values
        for each in path:
            holder = holder[each]
        match choose.randrange(5):
            case 0:
                holder[key] = copy.deepcopy(choose.choice(VALUES))
            case 1:
                del holder[key]
            case 2:
                holder[key] = [holder[key]]
            case 3:
                holder[key] = {"default": holder[key]}
            case 4 if isinstance(holder, dict):
                holder[key[1:] + choose.choice(("", "s", key[:1]))] = holder.pop(key)
    return values


def with_other_characters(text, choose):
    at = choose.randrange(len(text))
    return text[:at] + choose.choice('{}[]",:0e-\\\n\x00') + text[at + choose.randrange(2) :]


@pytest.mark.parametrize("seed", range(20))
def test_a_text_is_a_configuration_or_is_refused_with_its_place(seed):
    choose = random.Random(seed)
    for _ in range(20):
        values = mutated(choose)
        text = json.dumps(values)
        text = with_other_characters(text, choose) if choose.random() < 0.3 else text
        try:
            config = config_from_text(text)
        except ConfigError as error:
            assert str(error).startswith("Line "), text
        else:
            assert QuantConfig.from_dict(config.to_dict()) == config
            assert hash(config) == hash(QuantConfig.from_dict(config.to_dict()))


@pytest.mark.parametrize("seed", range(10))
def test_a_file_of_defaults_is_read_or_refused(seed):
    choose = random.Random(seed)
    whole = '[quantization]\ntransformer = "fp8"\n[flux2]\nquantization_encoder = "int4"\n'
    for _ in range(20):
        text = with_other_characters(whole, choose)
        for read in (DefaultsConfig.from_toml, DefaultsConfig.from_json):
            try:
                assert read(text).resolve("flux2")
            except QuantizationError as error:
                assert str(error)
