"""FP8 activations of a stored scale."""

import pytest
import torch

from graphquant.quant_core.errors import CalibrationError
from graphquant.quant_core.formats import Float8, StaticFloat8, format_from_dict


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, 64, generator=generator), torch.randn(5, 64, generator=generator)


def test_activations_are_rounded_by_the_stored_scale_and_saturate(case):
    weight, x = case
    stored = StaticFloat8(input_scale=2.0 / 448).quantize(weight)
    rounded = (x / (2.0 / 448)).clamp(-448, 448).to(torch.float8_e4m3fn).float() * (2.0 / 448)
    expected = rounded @ stored.dequantize().t()
    found = stored.format.linear(x, stored, None)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert (found - x @ stored.dequantize().t()).norm() > 0.05 * expected.norm()  # beyond 2: cut


def test_codes_are_those_of_fp8_per_tensor_and_the_scale_is_four_bytes(case):
    weight, _ = case
    static = StaticFloat8(input_scale=0.5)
    stored, plain = static.quantize(weight), Float8(granularity="per-tensor").quantize(weight)
    assert torch.equal(stored.qdata.view(torch.uint8), plain.qdata.view(torch.uint8))
    assert stored.input_scale.item() == 0.5 and stored.input_scale.dtype == torch.float32
    assert stored.nbytes == static.nbytes((32, 64)) == 32 * 64 + 4 + 4
    assert static.parts((32, 64))["input_scale"] == (torch.float32, ())


def test_layers_of_different_scales_have_equal_formats_so_that_compiled_code_serves_both():
    assert StaticFloat8(input_scale=0.5) == StaticFloat8(input_scale=0.25)


def test_a_format_comes_back_from_its_dictionary_with_its_scale():
    back = format_from_dict(StaticFloat8(input_scale=0.5).to_dict())
    assert back.input_scale == 0.5


def test_stock_comfyui_is_told_to_multiply_fp8():
    assert StaticFloat8().stock_marker() == {"format": "float8_e4m3fn"}


def test_no_scale_is_an_error(case):
    with pytest.raises(CalibrationError, match="Connect Calibrate Activations"):
        StaticFloat8().quantize(case[0])


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_scale_is_refused(scale):
    with pytest.raises(ValueError, match="must be positive and finite"):
        StaticFloat8(input_scale=scale)
