"""Dictionaries and JSON of random valid configurations lose nothing."""

import json

from hypothesis import given
from hypothesis import strategies as st

from graphquant.quant_core.config import (
    BitsAndBytesConfig,
    GGUFQuantizationConfig,
    GraphQuantConfig,
    NVIDIAModelOptConfig,
    QuantConfig,
    QuantoConfig,
    TorchAoConfig,
    VLLMOmniConfig,
)
from graphquant.quant_core.config.fields import COMPUTE_DTYPES, STORAGE_DTYPES
from graphquant.quant_core.config.modelopt import TYPES
from graphquant.quant_core.config.torchao import SHORTHANDS
from graphquant.quant_core.methods import METHODS

names = st.lists(st.text("abc_.019", min_size=1, max_size=12), max_size=3)
maybe_names = st.none() | names
bits = st.booleans()
sizes = st.none() | st.integers(1, 512)

bitsandbytes = st.builds(
    lambda both, **values: BitsAndBytesConfig(
        load_in_8bit=both == 8, load_in_4bit=both == 4, **values
    ),
    both=st.sampled_from([0, 4, 8]),
    llm_int8_threshold=st.floats(0, 100),
    llm_int8_skip_modules=maybe_names,
    llm_int8_enable_fp32_cpu_offload=bits,
    llm_int8_has_fp16_weight=bits,
    bnb_4bit_compute_dtype=st.sampled_from(COMPUTE_DTYPES),
    bnb_4bit_quant_type=st.sampled_from(["nf4", "fp4"]),
    bnb_4bit_use_double_quant=bits,
    bnb_4bit_quant_storage=st.sampled_from(STORAGE_DTYPES),
)
TORCHAO_OPTIONS = {
    "group_size": st.integers(1, 512),
    "inner_k_tiles": st.sampled_from([2, 4, 8]),
    "use_hqq": bits,
    "dtype": st.sampled_from([f"uint{width}" for width in range(1, 8)]),
    "ebits": st.integers(1, 6),
    "mbits": st.integers(0, 5),
}
torchao = st.sampled_from(sorted(SHORTHANDS)).flatmap(
    lambda name: st.builds(
        TorchAoConfig,
        quant_type=st.just(name),
        modules_to_not_convert=maybe_names,
        quant_type_kwargs=st.fixed_dictionaries(
            {},
            optional={key: TORCHAO_OPTIONS[key] for key in SHORTHANDS[name]},
        ),
    )
)
quanto = st.builds(
    QuantoConfig, st.sampled_from(["float8", "int8", "int4", "int2"]), modules_to_not_convert=names
)
gguf = st.builds(
    GGUFQuantizationConfig,
    compute_dtype=st.sampled_from(COMPUTE_DTYPES),
    modules_to_not_convert=maybe_names,
)
modelopt = st.builds(
    NVIDIAModelOptConfig,
    quant_type=st.sampled_from([*TYPES, *(f"{w}_{a}" for w in TYPES for a in TYPES)]),
    modules_to_not_convert=maybe_names,
    algorithm=st.sampled_from(["max", "mse", "awq_lite"]),
    channel_quantize=st.integers(-2, 1),
    block_quantize=sizes,
    disable_conv_quantization=bits,
    modelopt_config=st.none() | st.just({"quant_cfg": {"*": {"num_bits": [4, 3]}}}),
)
modelopt |= st.builds(
    NVIDIAModelOptConfig,
    st.sampled_from(["FP8_FP8", "INT8_INT8", "INT4_INT8", "NVFP4_NVFP4"]),
    weight_only=st.just(False),
    channel_quantize=st.none() | st.integers(-2, 1),
    forward_loop=st.none(),
)
vllm = st.builds(
    VLLMOmniConfig,
    method=st.just("fp8"),
    ignored_layers=names,
    weight_block_size=st.none() | st.just([128, 128]),
) | st.builds(VLLMOmniConfig, st.just("fp8"), names, st.just("static"))
own = st.builds(
    GraphQuantConfig,
    method=st.sampled_from(sorted(METHODS)),
    granularity=st.sampled_from([None, "per-row", "per-tensor"]),
    include=names,
    exclude=names,
)
configs = bitsandbytes | torchao | quanto | gguf | modelopt | vllm | own


@given(configs)
def test_dictionaries_and_json_lose_nothing(config):
    assert QuantConfig.from_dict(config.to_dict()) == config
    assert type(config).from_dict(config.to_dict()) == config
    assert QuantConfig.from_dict(json.loads(config.to_json_string(use_diff=False))) == config
    assert QuantConfig.from_dict(json.loads(config.to_json_string())) == config
    assert QuantConfig.from_dict({"_class_name": "X", "quantization_config": config.to_dict()}) == (
        config
    )
    assert hash(config) == hash(QuantConfig.from_dict(config.to_dict()))


@given(configs)
def test_the_difference_to_the_defaults_is_a_part_of_the_whole(config):
    whole, difference = config.to_dict(), config.to_diff_dict()
    assert {key: value for key, value in whole.items() if key in difference} == difference
