"""SVDQuant: a residual of four bits, a smoothing and a branch, as comfy-kitchen multiplies them."""

import pytest
import torch

from graphquant.quant_core.formats import SvdQuant
from lab.sampling import relative_l2

RESIDUALS = ("int4", "nvfp4")
KINDS = [("int4", 1), ("int4", 64), ("nvfp4", 1)]


def smoothed(fmt, weight, columns):
    """``weight`` in ``fmt`` with a smoothing that is not 1."""
    smooth = columns.bfloat16()
    values = weight.float() * smooth.float()
    up, down = fmt.branch_of(values)
    down = (down.float() / smooth.float().unsqueeze(1)).bfloat16()
    rest = values - up.float() @ (down.float() * smooth.float().unsqueeze(1)).t()
    rest = fmt.in_own_basis(rest)
    return fmt.assemble(fmt.residual_format.quantize(rest), smooth, up, down, weight.dtype)


def test_int4_is_multiplied_as_comfy_kitchen_multiplies_its_own_layout(normal):
    eager = pytest.importorskip("comfy_kitchen.backends.eager.svdquant")
    fmt = SvdQuant("int4", 8, "int4")
    weight = smoothed(fmt, normal(96, 256), torch.linspace(0.3, 3, 256))
    x, bias = normal(40, 256, std=1.0, seed=1), normal(96, std=1.0, seed=2)
    scale, smooth, up, down = (
        each.float()
        for each in (weight.scale, weight.smooth_factor, weight.proj_up, weight.proj_down)
    )
    codes, steps, thin = eager.quantize_svdquant_w4a4(x, smooth, down)
    theirs = eager.scaled_mm_svdquant_w4a4(codes, weight.qdata, steps, scale, thin, up, bias)
    assert relative_l2(fmt.emulated(x, weight, bias), theirs[:40]) < 1e-6
    assert relative_l2(fmt.emulated(x, weight, bias), fmt.linear(x, weight, bias)) > 0.02


@pytest.mark.parametrize(("residual", "rotation"), KINDS)
def test_smoothing_and_branch_are_read_in_the_basis_of_the_weight(residual, rotation, normal):
    fmt, exact = SvdQuant(residual, 8, rotation=rotation), normal(96, 256)
    weight = smoothed(fmt, exact, torch.linspace(0.3, 3, 256))
    x = normal(40, 256, std=1.0, seed=1)
    assert relative_l2(weight.dequantize(), exact) < 0.12
    assert relative_l2(fmt.linear(x, weight, None), x @ weight.dequantize().t()) < 1e-5


@pytest.mark.parametrize("residual", RESIDUALS)
def test_large_singular_values_are_the_branchs_and_cost_nothing(residual, normal):
    exact = normal(192, 256) + normal(192, 8, std=1.0, seed=3) @ normal(8, 256, seed=4)
    few, many = (SvdQuant(residual, rank).quantize(exact).dequantize() for rank in (1, 16))
    assert relative_l2(many, exact) < 0.035
    assert relative_l2(few, exact) > 2 * relative_l2(many, exact)


@pytest.mark.parametrize("residual", RESIDUALS)
def test_the_search_for_the_branch_finds_what_a_decomposition_finds(residual, normal):
    fmt = SvdQuant(residual, 8)
    exact = normal(384, 512) + normal(384, 8, std=1.0, seed=3) @ normal(8, 512, seed=4)
    up, down = fmt.branch_of(exact)
    left, sizes, right = torch.linalg.svd(exact, full_matrices=False)
    best = exact - (left[:, :8] * sizes[:8]) @ right[:8]
    found = exact - up.float() @ down.float().t()
    assert found.norm() < 1.01 * best.norm()


@pytest.mark.parametrize(("residual", "rotation"), KINDS)
def test_a_low_rank_change_is_appended_to_the_branch(residual, rotation, normal):
    fmt, exact = SvdQuant(residual, 8, residual, rotation), normal(96, 256)
    weight, x = fmt.quantize(exact), normal(40, 256, std=1.0, seed=1)
    up, down = normal(96, 4, seed=5), normal(4, 256, std=1.0, seed=6)
    appended = fmt.with_low_rank(weight, up, down)
    assert appended.proj_up.shape == (96, 12) and appended.proj_down.shape == (256, 12)
    for multiply in (fmt.linear, fmt.emulated):
        gained = multiply(x, appended, None) - multiply(x, weight, None)
        assert relative_l2(gained, x @ (up @ down).t()) < 1e-4
    changed = fmt.linear_with_low_rank(x, weight, None, up, down)
    assert torch.equal(changed, fmt.linear(x, appended, None))


@pytest.mark.parametrize("residual", RESIDUALS)
def test_activations_of_zero_and_no_rows_are_rounded_to_themselves(residual):
    fmt = SvdQuant(residual, 8, residual)
    assert torch.equal(fmt.round_activations(torch.zeros(3, 256)), torch.zeros(3, 256))
    assert fmt.round_activations(torch.zeros(0, 256)).shape == (0, 256)


@pytest.mark.parametrize(
    "values",
    [{"rotation": 8}, {"rank": 0}, {"rank": 513}, {"residual": "int8"}, {"activations": "nvfp4"}],
)
def test_what_cannot_be_is_a_value_error(values):
    with pytest.raises(ValueError, match=r"^No "):
        SvdQuant(**values)


def test_one_large_activation_of_a_row_is_spread_by_the_rotation(normal):
    """What no smoothing of columns reaches: each row has its own."""
    x, exact = normal(64, 256, std=1.0, seed=1), normal(96, 256)
    places = torch.randint(0, 256, (64, 4), generator=torch.Generator().manual_seed(2))
    x.scatter_(1, places, 12.0)
    expected = x @ exact.t()

    def error(rotation):
        fmt = SvdQuant("int4", 8, "int4", rotation)
        return relative_l2(fmt.emulated(x, fmt.quantize(exact), None), expected)

    assert error(64) < 0.8 * error(1)
