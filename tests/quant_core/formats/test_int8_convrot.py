"""Rotated INT8 is comfy-kitchen's, and keeps outliers from coarsening a whole row."""

import pytest
import torch
import torch.nn.functional as F

from graphquant.quant_core.formats import Int8, Int8ConvRot, format_from_dict
from lab.sampling import relative_l2

FMT = Int8ConvRot(activations="int8")


@pytest.fixture
def kitchen():
    return pytest.importorskip("comfy_kitchen.backends.eager.quantization")


@pytest.mark.parametrize(("rotation", "k"), [(256, 3072), (64, 320), (16, 48), (4, 12)])
def test_codes_and_scales_are_comfy_kitchens_bit_by_bit(kitchen, normal, rotation, k):
    weight = normal(300, k)
    weight[7] = 0
    stored = Int8ConvRot(rotation).quantize(weight)
    codes, scale = kitchen.quantize_int8_convrot_weight(weight, rotation)
    assert torch.equal(stored.qdata, codes)
    assert torch.allclose(stored.scale, scale, rtol=2e-7, atol=0)


def test_a_narrower_weight_is_rotated_in_float32_and_loses_less_than_comfy_kitchens(
    kitchen, normal
):
    weight = normal(64, 512, dtype=torch.bfloat16)
    stored = Int8ConvRot().quantize(weight)
    assert torch.equal(stored.qdata, Int8ConvRot().quantize(weight.float()).qdata)
    codes, scale = kitchen.quantize_int8_convrot_weight(weight, 256)
    theirs = kitchen.dequantize_int8_convrot_weight(codes, scale, 256)
    ours = stored.dequantize(torch.float32)
    assert relative_l2(ours, weight.float()) < relative_l2(theirs, weight.float())


@pytest.mark.parametrize("rotation", [256, 64, 16])
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_comfy_kitchens(kitchen, normal, rotation, bias):
    weight, x = normal(40, 768), normal(3, 9, 768, std=1.0, seed=1)
    offset = normal(40, seed=2) if bias else None
    stored = Int8ConvRot(rotation, "int8").quantize(weight)
    theirs = kitchen.int8_linear(
        x, stored.qdata, stored.scale, offset, torch.float32, True, rotation
    )
    assert relative_l2(stored.format.linear(x, stored, offset), theirs) < 1e-5


def test_it_dequantizes_to_what_comfy_kitchen_does(kitchen, normal):
    stored = FMT.quantize(normal(40, 768))
    theirs = kitchen.dequantize_int8_convrot_weight(stored.qdata, stored.scale, 256)
    assert torch.allclose(stored.dequantize(), theirs, atol=1e-7)


def test_outlier_activations_cost_a_quarter_of_what_they_cost_unrotated(normal):
    weight, x = normal(1024, 3072), normal(256, 3072, std=1.0, seed=1)
    x[:, torch.randperm(3072, generator=torch.Generator().manual_seed(2))[:30]] *= 30
    exact = F.linear(x, weight)
    unrotated = Int8(activations="int8")
    errors = [
        relative_l2(fmt.linear(x, fmt.quantize(weight), None), exact) for fmt in (FMT, unrotated)
    ]
    assert errors[0] <= 0.014 and errors[1] > 0.04


def test_an_outlier_column_of_the_weight_costs_nothing(normal):
    weight = normal(256, 1024)
    weight[:, ::61] *= 20
    assert relative_l2(FMT.quantize(weight).dequantize(), weight) < 0.0095
    assert relative_l2(Int8().quantize(weight).dequantize(), weight) > 0.03


def test_what_cannot_be_is_refused():
    for rotation in (0, 1, 2, 8, 128, 255, -256):
        with pytest.raises(ValueError, match=f"No rotation by {rotation}: use a power of 4"):
            Int8ConvRot(rotation)
    with pytest.raises(ValueError, match="No activations 'fp8'"):
        Int8ConvRot(activations="fp8")


def test_a_stock_comfyui_is_told_the_rotation_and_whether_activations_are_rounded():
    assert FMT.stock_marker() == {
        "format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 256
    }  # fmt: skip
    assert Int8ConvRot(64).stock_marker()["full_precision_matrix_mult"] is True
    assert format_from_dict({"kind": "int8_convrot", "rotation": 64}) == Int8ConvRot(64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fmt", [Int8ConvRot(64, "int8"), Int8ConvRot(64)], ids=str)
def test_a_lora_is_added_in_the_weights_own_basis(fmt, dtype, normal):
    weight, bias = fmt.quantize(normal(48, 128)), normal(48, seed=1).to(dtype)
    x = normal(2, 20, 128, std=1.0, seed=2).to(dtype)
    up, down = normal(48, 4, std=0.5, seed=3).to(dtype), normal(4, 128, std=0.5, seed=4).to(dtype)
    plain = fmt.linear(x, weight, bias).float()
    expected = plain + x.float() @ (up.float() @ down.float()).T
    found = fmt.linear_with_low_rank(x, weight, bias, up, down)
    assert (found.dtype, found.shape) == (dtype, (2, 20, 48))
    assert relative_l2(found, expected) < (1e-5 if dtype == torch.float32 else 1e-2)
