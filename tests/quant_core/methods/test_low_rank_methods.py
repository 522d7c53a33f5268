"""The methods with a low-rank branch: the format of each layer, and the rank."""

import pytest

from graphquant.quant_core.errors import UnsupportedMethodError
from graphquant.quant_core.formats import Int8, SmoothedNVFP4, SvdQuant
from graphquant.quant_core.methods import CALIBRATED, METHODS, Choice, require_rank, with_rank


@pytest.mark.parametrize("method", CALIBRATED)
def test_activations_are_rounded_as_the_residual_is(method):
    residual = method.removeprefix("svdquant-")
    choice = METHODS[method].choose((3072, 3072), "per-row")
    rotation = {"int4": 256, "nvfp4": 1}[residual]
    assert choice == Choice(SvdQuant(residual, 32, residual, rotation))
    assert choice.format.needs_calibration


def test_the_rotation_is_the_widest_that_divides_k():
    assert METHODS["svdquant-int4"].choose((64, 384), "per-row").format.rotation == 64


@pytest.mark.parametrize(("method", "k"), [("svdquant-int4", 96), ("svdquant-nvfp4", 72)])
def test_a_layer_that_its_groups_do_not_divide_is_int8_and_says_so(method, k):
    choice = METHODS[method].choose((128, k), "per-row")
    assert choice.format == Int8("per-row")
    assert choice.note.startswith("INT8: groups of ") and choice.note.endswith(f"K = {k}")


@pytest.mark.parametrize("method", CALIBRATED)
def test_a_convolution_is_kept(method):
    assert METHODS[method].choose((8, 8, 3, 3), "per-row").format is None


def test_the_rank_goes_to_formats_that_have_a_branch():
    choice = METHODS["svdquant-int4"].choose((256, 256), "per-row")
    assert with_rank(choice, 8).format.rank == 8
    assert with_rank(Choice(Int8("per-row"), "why"), 8) == Choice(Int8("per-row"), "why")
    assert with_rank(Choice(None, "why"), 8) == Choice(None, "why")


@pytest.mark.parametrize("rank", [-1, 513, 2.0, True, None, "32"])
def test_what_is_not_a_rank_is_refused_by_its_argument(rank):
    with pytest.raises(UnsupportedMethodError, match=r"^rank is "):
        require_rank(rank, "svdquant-nvfp4")


def test_without_a_branch_nvfp4_is_comfyuis_own_format_smoothed_and_int4_is_refused():
    choice = METHODS["svdquant-nvfp4"].choose((256, 256), "per-row")
    assert with_rank(choice, 0).format == SmoothedNVFP4("nvfp4")
    with pytest.raises(UnsupportedMethodError, match=r"^rank is 0, and svdquant-int4"):
        require_rank(0, "svdquant-int4")
