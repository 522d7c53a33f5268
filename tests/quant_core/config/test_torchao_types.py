"""torchao's own configurations, as torchao writes them down."""

import pytest
import torch

from graphquant.quant_core import ConfigError
from graphquant.quant_core.config import Meaning, QuantConfig, TorchAoConfig


def configs():
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        Float8WeightOnlyConfig,
        Int4WeightOnlyConfig,
        Int8DynamicActivationInt8WeightConfig,
        Int8DynamicActivationIntxWeightConfig,
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        MappingType,
        PerGroup,
        PerRow,
        PerTensor,
    )

    int4_groups = {"weight_dtype": torch.int4, "granularity": PerGroup(32)}
    asymmetric = MappingType.ASYMMETRIC
    return [
        (Int8WeightOnlyConfig(), ("int8", "per-row")),
        (Int8WeightOnlyConfig(granularity=PerTensor()), ("int8", "per-tensor")),
        (Int8WeightOnlyConfig(granularity=PerGroup(32)), "granularity of Int8WeightOnlyConfig is"),
        (Int8DynamicActivationInt8WeightConfig(), ("int8-dynamic", "per-row")),
        (Int4WeightOnlyConfig(group_size=64), ("int4-g64", None)),
        (Float8WeightOnlyConfig(), ("fp8-weight-only", "per-row")),
        (Float8WeightOnlyConfig(weight_dtype=torch.float8_e5m2), ("fp8-e5m2", "per-row")),
        (Float8DynamicActivationFloat8WeightConfig(), ("fp8-dynamic", "per-tensor")),
        (
            Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()),
            ("fp8-dynamic", "per-row"),
        ),
        (IntxWeightOnlyConfig(**int4_groups), ("int4-symmetric-g32", None)),
        (IntxWeightOnlyConfig(**int4_groups, mapping_type=asymmetric), ("int4-g32", None)),
        (IntxWeightOnlyConfig(weight_dtype=torch.int8), ("int8", "per-row")),
        (IntxWeightOnlyConfig(weight_dtype=torch.int4), "and only PerGroup is known"),
        (
            Int8DynamicActivationIntxWeightConfig(
                weight_dtype=torch.int4, weight_granularity=PerGroup(32)
            ),
            ("int4-dynamic", None),
        ),
        (
            Int8DynamicActivationIntxWeightConfig(
                weight_dtype=torch.int3, weight_granularity=PerGroup(32)
            ),
            "int3 in groups of 32, and only int4",
        ),
    ]


@pytest.mark.parametrize("number", range(len(configs())))
@pytest.mark.parametrize("wrapped", [True, False], ids=["default", "bare"])
def test_what_torchao_writes_is_read_or_refused_in_words(number, wrapped):
    from torchao.core.config import config_to_dict

    config, expected = configs()[number]
    written = config_to_dict(config)
    values = {"quant_method": "torchao", "quant_type": {"default": written} if wrapped else written}
    if isinstance(expected, str):
        with pytest.raises(ConfigError, match=expected) as error:
            QuantConfig.from_dict(values)
        assert error.value.path[0] == "quant_type"
        return
    read = QuantConfig.from_dict(values)
    meaning = read.checked_meaning()
    assert (meaning.method, meaning.granularity) == expected
    assert QuantConfig.from_dict(read.to_dict()) == read
    assert read.to_dict() == {**values, "modules_to_not_convert": None}


def typed(name, **data):
    return TorchAoConfig({"_type": name, "_version": 1, "_data": data}).checked_meaning()


def test_types_that_torchao_once_had_are_read():
    uint3 = {"_type": "torch.dtype", "_data": "uint3"}
    assert typed("UIntXWeightOnlyConfig", dtype=uint3, group_size=64) == Meaning("int3-g64")
    assert typed("FPXWeightOnlyConfig", ebits=3, mbits=2) == Meaning("fp6-e3m2")
    assert typed("NF4WeightOnlyConfig") == Meaning("nf4")
    assert typed("NVFP4WeightOnlyConfig", use_triton_kernel=True) == Meaning(
        "nvfp4-weight-only", notes=("These have no effect on any number: use_triton_kernel.",)
    )


def test_torchaos_configurations_of_more_formats_are_read():
    from torchao.core.config import config_to_dict
    from torchao.prototype.mx_formats import (
        MXDynamicActivationMXWeightConfig,
        NVFP4DynamicActivationNVFP4WeightConfig,
    )
    from torchao.quantization import Float8StaticActivationFloat8WeightConfig

    for config, method in (
        (NVFP4DynamicActivationNVFP4WeightConfig(), "nvfp4"),
        (MXDynamicActivationMXWeightConfig(), "mxfp8"),
        (Float8StaticActivationFloat8WeightConfig(), "fp8-static"),
    ):
        assert TorchAoConfig(config_to_dict(config)).checked_meaning().method == method


@pytest.mark.parametrize(
    ("name", "data", "message", "path"),
    [
        ("Int8WeightOnly", {}, "Did you mean Int8WeightOnlyConfig", ("_type",)),
        ("Int8WeightOnlyConfig", {"groups": 3}, "Did you mean group_size", ("_data", "groups")),
        ("Int8WeightOnlyConfig", {"group_size": 3}, "has no groups here", ("_data", "group_size")),
        ("Int4WeightOnlyConfig", {"group_size": "x"}, "is not a size", ("_data", "group_size")),
        ("FPXWeightOnlyConfig", {"ebits": 3}, "two numbers are needed", ("_data", "ebits")),
        (
            "MXDynamicActivationMXWeightConfig",
            {"scaling_mode": "FLOOR"},
            "is 'FLOOR', and only 'RCEIL' is known",
            ("_data", "scaling_mode"),
        ),
        (
            "Float8StaticActivationFloat8WeightConfig",
            {"granularity": {"_type": "PerRow", "_data": {}}},
            "only PerTensor has a static scale",
            ("_data", "granularity"),
        ),
    ],
)
def test_what_is_unknown_is_refused_at_its_place(name, data, message, path):
    with pytest.raises(ConfigError, match=message) as error:
        typed(name, **data)
    assert error.value.path == ("quant_type", *path)
