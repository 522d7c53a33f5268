"""torchao's shorthands and their options, as diffusers takes them."""

import torch

from graphquant.quant_core import ConfigError
from graphquant.quant_core.config import TorchAoConfig
from graphquant.quant_core.config.torchao import SHORTHANDS
from graphquant.quant_core.methods import ALIASES


def test_every_shorthand_of_torchao_is_a_method_or_says_why_not():
    refused = set()
    for name in (*SHORTHANDS, "fp3_e1m1", "fp7_e4m2"):
        try:
            TorchAoConfig(name).checked_meaning()
        except ConfigError:
            refused.add(name)
    assert refused == {"fpx_weight_only"}


def test_float8wo_means_e5m2_as_it_does_to_diffusers():
    meaning = TorchAoConfig("float8wo").checked_meaning()
    assert meaning.method == "float8wo" and ALIASES[meaning.method] == "fp8-e5m2"


def test_a_memory_layout_of_torchao_is_taken_and_noted():
    tiles = TorchAoConfig("int4wo", quant_type_kwargs={"group_size": 64, "inner_k_tiles": 8})
    (note,) = tiles.meaning().notes
    assert tiles.meaning().method == "int4-g64" and note.startswith("inner_k_tiles has no effect")


def test_a_dtype_is_kept_by_its_name():
    config = TorchAoConfig("uintx_weight_only", quant_type_kwargs={"dtype": torch.uint3})
    assert config.to_dict()["quant_type_kwargs"] == {"dtype": "uint3"}
    assert config.meaning().method == "int3-g64"
