"""Blocks of GGUF files have the values that the package gguf gives them."""

import sys

import numpy as np
import pytest
import torch

from graphquant.quant_core import UnknownNameError
from graphquant.quant_core.codes.ggml_blocks import BLOCK_TYPES
from graphquant.quant_core.formats import format_from_dict
from graphquant.quant_core.formats.gguf import GGUF

BY_PACKAGE = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"}


@pytest.fixture
def gguf():
    return pytest.importorskip("gguf", reason="gguf is not installed")


def random_blocks(kind, rows, blocks, seed=0):
    """uint8 [rows, bytes]; float16 scales among them may be infinite or NaN."""
    count = rows, blocks * BLOCK_TYPES[kind].nbytes
    return np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8)


def test_every_type_that_the_package_dequantizes_is_known(gguf):
    from gguf.quants import _type_traits

    assert {kind.name for kind in _type_traits} - {"BF16"} == set(BLOCK_TYPES)
    for kind in BLOCK_TYPES.values():
        number = gguf.GGMLQuantizationType[kind.name]
        assert (number.value, gguf.GGML_QUANT_SIZES[number]) == (
            kind.number,
            (kind.size, kind.nbytes),
        )
    assert {name for name, kind in BLOCK_TYPES.items() if kind.decode is None} == BY_PACKAGE


@pytest.mark.filterwarnings("ignore:.* encountered in")
@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_values_are_the_packages_to_the_last_bit(gguf, kind):
    blocks = random_blocks(kind, rows=40, blocks=3)
    expected = gguf.dequantize(blocks, gguf.GGMLQuantizationType[kind])
    shape = expected.shape
    weight = GGUF(kind).stored(torch.from_numpy(blocks), shape, torch.bfloat16)
    values = weight.dequantize(torch.float32).numpy()
    assert values.shape == shape == (40, 3 * BLOCK_TYPES[kind].size)
    assert np.array_equal(values, expected, equal_nan=True)
    assert np.isfinite(expected).mean() > 0.5
    assert weight.nbytes == weight.format.nbytes(shape) == blocks.size + 4


@pytest.mark.parametrize("shape", [(40, 48), (8, 6, 2, 20)], ids=str)
def test_blocks_may_run_on_over_the_ends_of_rows(gguf, normal, shape):
    flat = normal(*shape).reshape(-1, 32).numpy()
    blocks = gguf.quantize(flat, gguf.GGMLQuantizationType.Q8_0)
    expected = gguf.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0).reshape(shape)
    weight = GGUF("Q8_0").stored(torch.from_numpy(blocks), shape, torch.float32)
    assert weight.qdata.shape == (1, blocks.size)
    assert np.array_equal(weight.dequantize().numpy(), expected)


def test_linear_is_the_product_with_the_decoded_weight(gguf, normal):
    blocks = gguf.quantize(normal(24, 64).numpy(), gguf.GGMLQuantizationType.Q4_0)
    weight = GGUF("Q4_0").stored(torch.from_numpy(blocks), (24, 64), torch.float32)
    x, bias = normal(5, 64, std=1.0, seed=1), normal(24, seed=2)
    y = weight.format.linear(x, weight, bias)
    assert torch.allclose(y, x @ weight.dequantize().T + bias, atol=1e-5)


def test_what_has_to_be_rounded_again_becomes_int8(normal):
    weight = GGUF("Q4_K").quantize(normal(16, 256))
    assert str(weight.format) == "int8 per-row"


def test_it_is_written_and_read_as_json():
    assert format_from_dict(GGUF("Q6_K").to_dict()) == GGUF("Q6_K")
    with pytest.raises(UnknownNameError, match="Unknown GGUF type 'Q4_X'"):
        format_from_dict({"kind": "gguf", "type": "Q4_X"})


def test_without_the_package_the_rare_types_name_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    blocks = torch.from_numpy(random_blocks("IQ2_XS", 1, 1))
    weight = GGUF("IQ2_XS").stored(blocks, (1, 256), torch.float32)
    assert "on the CPU (gguf)" in weight.format.kernel(torch.device("cpu"))
    with pytest.raises(ImportError, match="pip install gguf"):
        weight.dequantize()
    common = torch.from_numpy(random_blocks("Q4_K", 1, 1))
    GGUF("Q4_K").stored(common, (1, 256), torch.float32).dequantize()
