"""torchao's own files are read to its own values."""

import json

import pytest
import torch
from torch import nn

from graphquant.quant_core import QuantizationError

N, K = 32, 256


def configs():
    from torchao.prototype.mx_formats import NVFP4WeightOnlyConfig
    from torchao.quantization import (
        Float8WeightOnlyConfig,
        Int8DynamicActivationInt8WeightConfig,
        Int8DynamicActivationIntxWeightConfig,
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        MappingType,
        PerAxis,
        PerGroup,
        PerTensor,
    )

    def groups(bits, **options):
        dtype = getattr(torch, f"int{bits}")
        return IntxWeightOnlyConfig(weight_dtype=dtype, granularity=PerGroup(32), **options)

    # What it is made with; what it becomes; the largest relative error against torchao's values.
    return {
        "int8": (Int8WeightOnlyConfig(), "int8 per-row", 0),
        "int8 tensor": (Int8WeightOnlyConfig(granularity=PerTensor()), "int8 per-tensor", 0),
        "int8 groups": (Int8WeightOnlyConfig(granularity=PerGroup(32)), "int8 per-row", 0.01),
        "int8 dynamic": (
            Int8DynamicActivationInt8WeightConfig(),
            "int8 per-row, int8 activations",
            0,
        ),
        "float8": (Float8WeightOnlyConfig(), "float8_e4m3fn per-row", 0),
        "float8 e5m2": (
            Float8WeightOnlyConfig(weight_dtype=torch.float8_e5m2, granularity=PerTensor()),
            "float8_e5m2 per-tensor",
            0,
        ),
        "float8 groups": (
            Float8WeightOnlyConfig(granularity=PerGroup(64)),
            "float8_e4m3fn blocks of 1 x 64",
            0,
        ),
        "int2": (groups(2), "int2 symmetric groups of 32", 0),
        "int4": (groups(4), "int4 symmetric groups of 32", 0),
        "int7": (groups(7), "int7 symmetric groups of 32", 0),
        "int4 affine": (groups(4, mapping_type=MappingType.ASYMMETRIC), "int8 per-row", 0.01),
        "int4 rows": (
            IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerAxis(0)),
            f"int4 symmetric groups of {K}",
            0,
        ),
        "int4 dynamic": (
            Int8DynamicActivationIntxWeightConfig(
                weight_dtype=torch.int4, weight_granularity=PerGroup(32)
            ),
            "int4 symmetric groups of 32, int8 activations",
            0,
        ),
        "nvfp4": (NVFP4WeightOnlyConfig(), "nvfp4 blocks of 16", 0),
    }


def flattened(weight, config):
    """Tensors and metadata as torchao writes them, and the weight that it makes of them."""
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import quantize_

    layer = nn.Sequential(nn.Linear(K, N, dtype=torch.bfloat16)).requires_grad_(False)
    layer[0].weight.copy_(weight)
    quantize_(layer, config)
    dense = layer[0].weight.dequantize()
    return *flatten_tensor_state_dict(layer.state_dict()), dense


@pytest.mark.parametrize("kind", configs())
def test_every_kind_has_torchaos_values(found, normal, kind):
    config, expected, bound = configs()[kind]
    tensors, metadata, dense = flattened(normal(N, K), config)
    foreign, files = found(tensors, metadata)
    layer = foreign.layers["0"]
    assert str(layer.format) == expected
    assert layer.shape == (N, K) and layer.dtype == torch.bfloat16
    assert {*layer.tensors, *foreign.plain} == set(tensors)
    read = layer.read(files, torch.bfloat16)
    error = (read.dequantize().float() - dense.float()).norm() / dense.float().norm()
    assert error <= bound
    assert (bound > 0) == ("rounded again" in layer.origin)


def int8_file(normal):
    tensors, metadata, _ = flattened(normal(N, K), configs()["int8"][0])
    return tensors, metadata


def described(metadata, **values):
    metadata["0.weight"] = json.dumps({**json.loads(metadata["0.weight"]), **values})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t, m: t.pop("0._weight_scale"), "lacks 0._weight_scale, the scale of 0.weight"),
        (lambda t, m: t.update({"1.weight_scale": torch.ones(2)}), "belongs to no quantized layer"),
        (lambda t, m: m.update({"0.weight": "["}), "that is not JSON"),
        (lambda t, m: described(m, _type="Int4Tensor"), "as torchao's Int4Tensor, which is not"),
        (lambda t, m: described(m, _type="os.system"), "as torchao's os.system, which is not"),
        (lambda t, m: described(m, _type=["Int8Tensor"]), "['Int8Tensor'], which is not read"),
        (
            lambda t, m: t.update({"0._weight_qdata": torch.ones((), dtype=torch.int8)}),
            "of [] in blocks of",
        ),
        (
            lambda t, m: t.update({"0._weight_qdata": torch.ones(32, 0, dtype=torch.int8)}),
            "of [32, 0] in blocks of",
        ),
        (lambda t, m: described(m, _data=None), "describes 0.weight without its tensors"),
        (lambda t, m: described(m, _tensor_data_names=[]), "without qdata and scale"),
        (lambda t, m: described(m, _data={"block_size": [1, 0]}), "in blocks of [1, 0]"),
        (lambda t, m: described(m, _data={"block_size": [1, 7]}), "in blocks of [1, 7]"),
        (
            lambda t, m: t.update({"0._weight_scale": torch.ones(4, 1)}),
            "in 32 blocks, with scale [4, 1]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_contradicts_itself_is_refused_in_one_line(found, normal, change, fault):
    tensors, metadata = int8_file(normal)
    change(tensors, metadata)
    with pytest.raises(QuantizationError) as error:
        found(tensors, metadata)
    assert fault in str(error.value) and "\n" not in str(error.value)
