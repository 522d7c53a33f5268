"""W4A8 and W6A8 are ComfyUI's asym_w4a8_int8, and lose less than comfy-kitchen's own quantizer."""

import pytest
import torch
import torch.nn.functional as F

from graphquant.quant_core.codes.rotation import rotate
from graphquant.quant_core.formats import W4A8, W6A8, QuantizedWeight, RotatedGroups
from graphquant.quant_core.formats.rotated_groups import CODEBOOK, rotated_groups
from lab.sampling import relative_l2

both = pytest.mark.parametrize("fmt", [W4A8, W6A8], ids=str)


@pytest.fixture
def kitchen():
    """0.2.36 and newer have both widths."""
    module = pytest.importorskip("comfy_kitchen.backends.eager.w4a8_int8")
    if not hasattr(module, "_W6_LEVELS"):
        pytest.skip("this comfy-kitchen has no W6A8")
    return module


def weights(normal):
    """Gaussian, with heavy tails (Student t, 5 degrees of freedom), with outlier columns."""
    gaussian = normal(256, 1024)
    generator = torch.Generator().manual_seed(3)
    squares = torch.randn(5, 256, 1024, generator=generator).square_().sum(0)
    columns = gaussian.clone()
    columns[:, ::61] *= 20
    return {"gaussian": gaussian, "t5": gaussian * (5 / squares).sqrt(), "columns": columns}


@pytest.mark.parametrize("kind", ["gaussian", "t5", "columns"])
@pytest.mark.parametrize(("fmt", "bound"), [(W4A8, 0.072), (W6A8, 0.0205)], ids=str)
def test_the_weights_error_stays_below_what_comfy_kitchens_quantizer_makes(
    fmt, bound, kind, normal
):
    weight = weights(normal)[kind]
    assert relative_l2(fmt.quantize(weight).dequantize(), weight) <= bound


@pytest.mark.parametrize("kind", ["gaussian", "t5", "columns"])
@both
def test_the_error_is_not_above_comfy_kitchens_on_the_same_weights(kitchen, fmt, kind, normal):
    weight = weights(normal)[kind]
    codes, s_rel, s_channel, _, table = kitchen.quantize_w4a8_int8_weight(weight, bits=fmt.bits)
    theirs = kitchen.dequantize_w4a8_int8_weight(
        codes, s_rel, s_channel, table, output_dtype=torch.float32
    )
    ours = fmt.quantize(weight).dequantize()
    assert relative_l2(ours, weight) < relative_l2(theirs, weight)


@pytest.mark.parametrize("rotation", [256, 16])
@pytest.mark.parametrize("bits", [4, 6])
def test_comfy_kitchen_reads_and_multiplies_the_same_weight(kitchen, bits, rotation, normal):
    fmt = rotated_groups(bits, rotation)
    weight, x = normal(24, 512), normal(3, 7, 512, std=1.0, seed=1)
    bias = normal(24, seed=2)
    stored = fmt.quantize(weight)
    parts = (stored.qdata, stored.scale, stored.scale_2, stored.codebook)
    theirs = kitchen.dequantize_w4a8_int8_weight(
        *parts, convrot_groupsize=rotation, output_dtype=torch.float32
    )
    assert torch.allclose(stored.dequantize(), theirs, atol=1e-7)
    y = kitchen.w4a8_int8_linear(
        x, *parts, bias=bias, convrot_groupsize=rotation, out_dtype=torch.float32
    )
    assert relative_l2(fmt.linear(x, stored, bias), y) < 1e-5


def decoded(stored):
    """The weight in the rotated basis, value by value, from the layout's description."""
    fmt = stored.format
    n, k = stored.shape
    octets = stored.qdata.view(torch.uint8)
    out = torch.empty(n, k)
    for row in range(n):
        for column in range(k):
            octet = int(octets[row, column // 2])
            code = octet >> 4 if column % 2 else octet & 15
            if fmt.bits == 6:
                high = int(octets[row, k // 2 + column // 4])
                code |= ((high >> 2 * (column % 4)) & 3) << 4
            level = torch.tensor(CODEBOOK[code] if fmt.bits == 4 else code - 32.0)
            units = (level * stored.scale[row, column // 16].float()).round().clamp(-127, 127)
            out[row, column] = units * stored.scale_2[row]
    return out


@both
def test_the_tensors_are_laid_out_as_described(fmt, normal):
    fmt = rotated_groups(fmt.bits, 64)
    stored = fmt.quantize(normal(3, 64))
    assert torch.allclose(rotate(stored.dequantize(), 64), decoded(stored), atol=1e-6)


@both
def test_every_code_decodes_to_the_level_nearest_to_its_weight(fmt, normal):
    fmt = rotated_groups(fmt.bits, 16)
    weight = normal(8, 64)
    stored = fmt.quantize(weight)
    target = (rotate(weight, 16) / stored.scale_2[:, None]).unflatten(1, (-1, 16))
    levels = torch.tensor(CODEBOOK) if fmt.bits == 4 else torch.arange(-31.0, 32.0)
    grid = (levels * stored.scale.float()[..., None, None]).round_().clamp_(-127, 127)
    best = (grid - target[..., None]).abs().amin(-1)
    found = (fmt.int8_codes(stored).float().view_as(target) - target).abs()
    assert torch.allclose(found, best, atol=1e-4)


def test_outlier_activations_cost_little(normal):
    weight, x = normal(512, 1024), normal(64, 1024, std=1.0, seed=1)
    x[:, ::97] *= 30
    exact = F.linear(x, weight)
    for fmt, bound in ((W4A8, 0.075), (W6A8, 0.024)):
        assert relative_l2(fmt.linear(x, fmt.quantize(weight), None), exact) < bound


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float32"])
def test_integer_levels_and_float32_scales_which_others_write_are_read_and_written(dtype, normal):
    fmt = RotatedGroups(4, 32, 64, codebook=False, scale_dtype=dtype, activations="int8")
    weight = normal(16, 128)
    stored = fmt.quantize(weight)
    assert stored.codebook is None and stored.scale.dtype == getattr(torch, dtype)
    assert relative_l2(stored.dequantize(), weight) < 0.11


def test_a_table_of_its_own_counts(normal):
    stored = W4A8.quantize(normal(16, 256))
    parts = {**stored.tensors, "codebook": stored.codebook / 2, "scale_2": stored.scale_2 * 2}
    halved = QuantizedWeight.of_parts(W4A8, parts, stored.shape, stored.dtype)
    assert not torch.equal(W4A8.int8_codes(halved), W4A8.int8_codes(stored))
    # The finer grid has its steps elsewhere, and clips nothing at 127 any more.
    assert relative_l2(halved.dequantize(), stored.dequantize()) < 0.06


@pytest.mark.parametrize(
    "values",
    [{"bits": 5}, {"bits": 6}, {"group_size": 5}, {"group_size": 24}, {"rotation": 32},
     {"scale_dtype": "float16"}, {"activations": "int4"}],
)  # fmt: skip
def test_what_cannot_be_is_a_value_error(values):
    with pytest.raises(ValueError, match=r"^No "):
        RotatedGroups(**values)


@both
def test_rows_of_zeros_and_tiny_rows_keep_their_size(fmt, normal):
    weight = normal(4, 256)
    weight[1] = 0
    weight[2] *= 1e-12
    found = fmt.quantize(weight).dequantize()
    assert torch.equal(found[1], torch.zeros(256))
    assert relative_l2(found[2], weight[2]) < 0.09
