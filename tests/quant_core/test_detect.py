"""What is quantized already, asked of every parameter; and true bytes.

GGUF and bitsandbytes are told by their tensor classes alone: the stand-ins below are subclasses of
the same shape and name, for neither package is needed here.
"""

import pytest
import torch
from comfy_kitchen.tensor import QuantizedTensor
from torch import nn
from torchao.quantization import (
    Float8WeightOnlyConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    quantize_,
    to_nf4,
)

from graphquant.quant_core import (
    NothingToQuantizeError,
    apply_layerwise_casting,
    plan_component,
    quantize_component,
)
from graphquant.quant_core.detect import (
    FLOAT8_DTYPES,
    layer_quantized_as,
    module_bytes,
    quantized_as,
    stored_bytes,
)


class GGMLTensor(torch.Tensor):
    """As ComfyUI-GGUF's: raw bytes that present themselves as a weight of another shape."""


class Int8Params(nn.Parameter):
    """As bitsandbytes's, 8 bits."""


class Params4bit(nn.Parameter):
    """As bitsandbytes's, 4 bits: uint8 [N * K / 2, 1]."""


def frozen(tensor):
    return nn.Parameter(tensor, requires_grad=False)


def torchao_weight(config):
    layer = nn.Sequential(nn.Linear(128, 128))
    quantize_(layer, config)
    return layer[0].weight


def our_int4():
    model = nn.Sequential(nn.Linear(128, 128))
    quantize_component(model, "int4")
    return model[0].weight


def comfyui_int8():
    return frozen(QuantizedTensor.from_float(torch.ones(128, 128), "TensorWiseINT8Layout"))


def gguf():
    data = torch.zeros(128, 72, dtype=torch.uint8)
    return frozen(torch.Tensor._make_subclass(GGMLTensor, data))


CODES = torch.zeros(128, 128, dtype=torch.int8)
QUANTIZED = {
    "torchao fp8": (lambda: torchao_weight(Float8WeightOnlyConfig()), "Float8Tensor"),
    "torchao int8": (
        lambda: torchao_weight(Int8WeightOnlyConfig(set_inductor_config=False)),
        "Int8Tensor",
    ),
    "torchao intx": (
        lambda: torchao_weight(IntxWeightOnlyConfig(torch.int4)),
        "IntxUnpackedToInt8Tensor",
    ),
    "torchao nf4": (lambda: frozen(to_nf4(torch.randn(128, 128))), "NF4Tensor"),
    "our int4": (our_int4, "PackedTensor"),
    "ComfyUI": (comfyui_int8, "ComfyUI TensorWiseINT8Layout"),
    "GGUF": (gguf, "GGMLTensor"),
    "bitsandbytes 8": (lambda: Int8Params(CODES, requires_grad=False), "Int8Params"),
    "bitsandbytes 4": (
        lambda: Params4bit(torch.zeros(8192, 1, dtype=torch.uint8), requires_grad=False),
        "Params4bit",
    ),
    "int8 codes": (lambda: frozen(CODES), "int8"),
    "uint8 codes": (lambda: frozen(CODES.to(torch.uint8)), "uint8"),
} | {
    str(dtype): (lambda dtype=dtype: frozen(CODES.float().to(dtype)), str(dtype)[6:])
    for dtype in sorted(FLOAT8_DTYPES, key=str)
}

every_kind = pytest.mark.parametrize("kind", QUANTIZED)


def layer_with(weight):
    layer = nn.Linear(128, 128, bias=False)
    layer.weight = weight
    return layer


def mixed_model(*kinds):
    """Three plain layers first, then one of each kind: the first parameter tells nothing."""
    plain = [nn.Linear(128, 128) for _ in range(3)]
    return nn.Sequential(*plain, *(layer_with(QUANTIZED[kind][0]()) for kind in kinds))


@every_kind
def test_a_quantized_tensor_is_known_by_its_class_or_dtype(kind):
    make, name = QUANTIZED[kind]
    assert quantized_as(make()) == name
    assert layer_quantized_as(layer_with(make())) == name


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str
)
def test_an_ordinary_floating_point_tensor_is_not_quantized(dtype):
    assert quantized_as(torch.ones(2, dtype=dtype)) is None
    assert quantized_as(nn.Parameter(torch.ones(2, dtype=dtype))) is None


def test_all_native_float8_dtypes_of_this_torch_are_known():
    native = {
        dtype
        for name in dir(torch)
        if name.startswith("float8") and isinstance(dtype := getattr(torch, name), torch.dtype)
    }
    assert native == FLOAT8_DTYPES


@every_kind
def test_a_layer_that_is_quantized_already_is_left_and_counted_and_the_rest_is_quantized(kind):
    model = mixed_model(kind)
    left = model[3].weight
    _, stats = quantize_component(model, "int8")
    assert (stats["method"], stats["quantized_layers"], stats["skipped_layers"]) == ("int8", 3, 1)
    assert stats["layers"][3]["action"] == "already quantized"
    assert stats["layers"][3]["reason"] == f"already quantized: {QUANTIZED[kind][1]}"
    assert model[3].weight is left
    assert all(quantized_as(model[i].weight) == "Int8Tensor" for i in range(3))


@every_kind
@pytest.mark.parametrize("method", ["int8", "int4", "fp8-weight-only"])
def test_a_model_that_is_all_quantized_comes_back_untouched(kind, method):
    model = nn.Sequential(nn.LayerNorm(128), *mixed_model(kind, kind)[3:])
    before = list(model.parameters())
    result, stats = quantize_component(model, method)
    assert result is model
    assert all(old is new for old, new in zip(before, model.parameters(), strict=True))
    assert stats["method"] == "already_quantized"
    counts = stats["quantized_layers"], stats["skipped_layers"], stats["total_layers"]
    assert counts == (0, 2, 2)
    assert stats["model_bytes_before"] == stats["model_bytes_after"]
    assert stats["kernel"] == "unchanged"


def test_quantizing_twice_changes_nothing_the_second_time(transformer):
    quantize_component(transformer, "int8")
    before = list(transformer.parameters())
    _, stats = quantize_component(transformer, "fp8-weight-only")
    assert (stats["method"], stats["quantized_layers"]) == ("already_quantized", 0)
    assert all(old is new for old, new in zip(before, transformer.parameters(), strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"method": "int9"},
        {"method": "int8", "granularity": "per-row-ish"},
        {"method": "int8", "component_type": "unet"},
        {"method": "int8", "preset": "flux9"},
        {"method": "int8", "include": "nowhere"},
    ],
    ids=str,
)
def test_a_wrong_argument_is_an_error_even_for_a_model_quantized_already(options):
    model = mixed_model("torchao int8")[3:]
    with pytest.raises(ValueError, match=r"^(Unknown|Include pattern)"):
        quantize_component(model, **options)


def test_a_quantized_bias_counts_too():
    layer = nn.Linear(8, 8)
    layer.bias = frozen(torch.zeros(8, dtype=torch.uint8))
    assert layer_quantized_as(layer) == "uint8"


@pytest.mark.parametrize(
    ("method", "granularity", "weight_bytes"),
    [
        ("int8", "per-row", 256 * 512 + 4 * 256),
        ("int8", "per-tensor", 256 * 512 + 4),
        ("fp8-weight-only", "per-row", 256 * 512 + 4 * 256),
        ("int4", "per-row", 256 * 512 // 2 + 4 * 256 * 4),
    ],
)
def test_stored_bytes_are_those_that_the_parts_occupy(method, granularity, weight_bytes):
    model = nn.Sequential(nn.Linear(512, 256, dtype=torch.bfloat16))
    _, stats = quantize_component(model, method, granularity=granularity)
    weight = model[0].weight
    parts = (getattr(weight, name) for name in weight.__tensor_flatten__()[0])
    assert sum(part.untyped_storage().nbytes() for part in parts) == weight_bytes
    assert stored_bytes(weight) == stats["quantized_bytes_after"] == weight_bytes
    assert stats["quantized_bytes_before"] == 2 * 256 * 512
    assert module_bytes(model) == stats["model_bytes_after"] == weight_bytes + 2 * 256
    assert stats["model_bytes_before"] == 2 * 256 * 512 + 2 * 256


def test_module_bytes_count_buffers_and_count_what_is_shared_once():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    model.register_buffer("table", torch.zeros(10, dtype=torch.float64))
    assert module_bytes(model) == 4 * 16 + 8 * 10


def test_a_plan_of_a_mixed_model_needs_no_values(cpu):
    model = nn.Sequential(nn.Linear(64, 64, device="meta"), layer_with(frozen(CODES.to("meta"))))
    plan = plan_component(model, "int8", hardware=cpu)
    assert [layer.action for layer in plan.layers] == ["quantize", "already quantized"]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("layer", [nn.Linear, lambda n, k, dtype: nn.Conv2d(n, k, 1, dtype=dtype)])
def test_complex_numbers_are_kept_and_not_taken_for_codes(dtype, layer):
    kind = "transformer" if layer is nn.Linear else "vae"
    model = nn.ModuleDict({"wave": layer(64, 64, dtype=dtype), "decoder": nn.Linear(64, 64)})
    assert quantized_as(model["wave"].weight) is None
    plan = plan_component(model, "int8", kind, scope="both") if kind == "vae" else None
    plan = plan or plan_component(model, "int8")
    wave = next(each for each in plan.layers if each.name == "wave")
    name = str(dtype).removeprefix("torch.")
    assert (wave.action, wave.reason) == ("keep", f"its numbers are complex ({name})")
    assert [each.name for each in plan.quantized] == ["decoder"]


def test_a_model_of_complex_numbers_alone_is_refused_not_called_quantized():
    model = nn.Sequential(nn.Linear(8, 8, dtype=torch.complex64))
    with pytest.raises(NothingToQuantizeError, match="its numbers are complex"):
        quantize_component(model, "int8")
    with pytest.raises(NothingToQuantizeError, match="its numbers are complex"):
        apply_layerwise_casting(model)
