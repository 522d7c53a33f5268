"""A configuration goes straight into quantize_component, whoever wrote it."""

import copy
import subprocess
import sys

import pytest
import torch
from torchao.quantization import (
    Float8WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    PerGroup,
)

from graphquant.quant_core import (
    BitsAndBytesConfig,
    ConfigError,
    GGUFQuantizationConfig,
    NVIDIAModelOptConfig,
    QuantConfig,
    QuantizationMethod,
    QuantoConfig,
    TorchAoConfig,
    UnknownNameError,
    VLLMOmniConfig,
    quantize_component,
)
from graphquant.quant_core.errors import CalibrationError
from lab.pack import ROOT
from lab.sampling import relative_l2

# What each library writes, and the method and first format that it means.
CONFIGURATIONS = [
    (TorchAoConfig("int8wo"), "int8", "int8 per-row"),
    (TorchAoConfig("int4wo", group_size=64), "int4-g64", "int4 groups of 64"),
    (TorchAoConfig("uint3wo", ["blocks.0"], group_size=32), "int3-g32", "int3 groups of 32"),
    (TorchAoConfig(Int8WeightOnlyConfig()), "int8", "int8 per-row"),
    (
        TorchAoConfig(Int8DynamicActivationInt8WeightConfig()),
        "int8-dynamic",
        "int8 per-row, int8 activations",
    ),
    (TorchAoConfig(Float8WeightOnlyConfig()), "fp8-weight-only", "float8_e4m3fn per-row"),
    (
        TorchAoConfig(IntxWeightOnlyConfig(torch.int5, PerGroup(32))),
        "int5-symmetric-g32",
        "int5 symmetric groups of 32",
    ),
    (Int8WeightOnlyConfig(), "int8", "int8 per-row"),
    ({"quant_method": "quanto", "weights_dtype": "int2"}, "int2", "int2 groups of 64"),
    (
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
            bnb_4bit_use_double_quant=True,
        ),
        "nf4-double",
        "nf4 blocks of 64, double quantization",
    ),
    (QuantoConfig(weights_dtype="int4"), "int4", "int4 groups of 128"),
    (
        NVIDIAModelOptConfig("INT4", channel_quantize=-1, block_quantize=64),
        "int4-g64",
        "int4 groups of 64",
    ),
    (VLLMOmniConfig("fp8", weight_block_size=[128, 128]), "fp8-block", "float8_e4m3fn blocks of"),
]


@pytest.mark.parametrize(("config", "method", "fmt"), CONFIGURATIONS, ids=lambda v: str(v)[:40])
def test_a_configuration_is_a_method(config, method, fmt, transformer, tokens, cpu):
    model, stats = quantize_component(transformer, config, hardware=cpu)
    assert model is transformer and stats["method"] == method
    (done,) = (layer for layer in stats["layers"] if layer["name"] == "vace_blocks.0")
    assert done["format"].startswith(fmt)
    assert model(tokens).isfinite().all()


def test_it_also_says_which_layers_are_kept_and_what_has_no_effect(transformer):
    config = BitsAndBytesConfig(
        load_in_4bit=True, llm_int8_skip_modules=["blocks.0"], bnb_4bit_compute_dtype="bfloat16"
    )
    _, stats = quantize_component(transformer, config, exclude=["img_in"])
    kept = {layer["name"] for layer in stats["layers"] if "excluded" in layer["reason"]}
    assert "blocks.0.attn" in kept and "img_in" in kept
    assert any("bnb_4bit_compute_dtype has no effect" in note for note in stats["notes"])


def test_its_granularity_counts_more_than_the_arguments(transformer):
    config = NVIDIAModelOptConfig("INT8")
    quantize_component(transformer, config, granularity="per-row")
    assert transformer.blocks[0].attn.weight.scale.numel() == 1


def test_a_forward_loop_calibrates_fp8_activations(transformer, tokens, fp8_hardware):
    exact, plain = transformer(tokens), copy.deepcopy(transformer)
    config = NVIDIAModelOptConfig(
        "FP8_FP8", weight_only=False, forward_loop=lambda model: model(tokens)
    )
    _, stats = quantize_component(transformer, config, hardware=fp8_hardware)
    assert stats["method"] == "fp8-static"
    weight = transformer.img_in.weight.quantized_weight()
    assert weight.input_scale == pytest.approx(tokens.abs().max().item() / 448, rel=1e-6)
    assert relative_l2(transformer(tokens), exact) < 0.08
    assert not any(layer._forward_pre_hooks for layer in transformer.modules())
    idle = NVIDIAModelOptConfig("FP8_FP8", weight_only=False, forward_loop=lambda model: None)
    with pytest.raises(CalibrationError, match="forward_loop called no Linear"):
        quantize_component(plain, idle, hardware=fp8_hardware)
    assert not any(layer._forward_pre_hooks for layer in plain.modules())


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (["int8"], UnknownNameError, r"Unknown method \['int8'\]"),
        (8, UnknownNameError, "Unknown method 8"),
        (None, UnknownNameError, "Unknown method None"),
        ({"int8"}, UnknownNameError, "Unknown method {'int8'}"),
        ({"quant_method": "quanto", "dtype": "int8"}, ConfigError, "Unknown key of quanto"),
        (GGUFQuantizationConfig(), ConfigError, "Load the file"),
        (QuantoConfig, UnknownNameError, "Unknown method"),
    ],
)
def test_what_is_not_a_method_is_refused_and_nothing_is_touched(
    config, error, message, transformer
):
    before = list(transformer.parameters())
    with pytest.raises(error, match=message):
        quantize_component(transformer, config)
    assert all(a is b for a, b in zip(before, transformer.parameters(), strict=True))


def test_torchaos_own_objects_are_written_and_read_as_diffusers_does():
    config = TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=["proj"])
    written = config.to_dict()
    assert written["quant_type"]["default"]["_type"] == "Int8WeightOnlyConfig"
    assert QuantConfig.from_dict(written) == config


def test_the_method_is_an_enumeration_of_texts(tmp_path):
    config = TorchAoConfig("int4wo", group_size=64)
    assert config.quant_method is QuantizationMethod.TORCHAO
    assert config.quant_method == "torchao" and f"{config.quant_method}" == "torchao"
    assert {method.name: method.value for method in QuantizationMethod}["BITS_AND_BYTES"] == (
        "bitsandbytes"
    )
    config.to_json_file(tmp_path / "config.json")
    text = (tmp_path / "config.json").read_text()
    assert text == config.to_json_string(use_diff=False)
    assert '"group_size": 64' in config.to_json_string()
    assert "modules_to_not_convert" not in config.to_json_string()


def test_nothing_of_a_configuration_changes_in_place():
    config = TorchAoConfig("int4wo", quant_type_kwargs={"group_size": 64})
    typed = TorchAoConfig(Int8WeightOnlyConfig())
    for mapping in (config.quant_type_kwargs, typed.quant_type, typed.quant_type["default"]):
        with pytest.raises(TypeError, match="cannot be changed"):
            mapping["group_size"] = 32
        with pytest.raises(TypeError, match="cannot be changed"):
            mapping.update(group_size=32)
    assert copy.deepcopy(config) == config and copy.copy(typed) == typed


IMPORT = """
import sys
from lab.pack import load_pack
load_pack()
from graphquant.quant_core import TorchAoConfig, config_from_text
TorchAoConfig("int4wo", group_size=64).to_json_string()
config_from_text('{"quant_method": "torchao", "quant_type": "int8wo"}').checked_meaning()
print("torchao" in sys.modules)
"""


def test_configurations_import_no_torchao():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
