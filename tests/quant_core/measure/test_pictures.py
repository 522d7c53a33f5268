"""Likeness of pictures, against the figures of the packages that the field uses."""

import math

import pytest
import torch

from graphquant.quant_core.measure.pictures import (
    SMALLEST_SIDE,
    mean_absolute_error,
    ms_ssim,
    psnr,
    ssim,
)


@pytest.fixture
def pair():
    """A smooth pattern, and the same with a ripple of other phase and strength in each picture."""
    y = torch.linspace(0, 1, 176).view(1, 1, -1, 1)
    x = torch.linspace(0, 1, 192).view(1, 1, 1, -1)
    colour = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    strength = torch.tensor([0.02, 0.2]).view(2, 1, 1, 1)
    reference = (0.5 + 0.4 * torch.sin(9 * colour * x + 5 * y)).expand(2, 3, 176, 192)
    ripple = torch.sin(60 * y + 40 * x * colour)
    return (reference + strength * ripple).clamp(0, 1), reference


def test_psnr_and_mean_absolute_error_are_those_of_their_definitions():
    reference = torch.full((1, 3, 8, 8), 0.5)
    result = reference + 0.1
    assert psnr(result, reference).item() == pytest.approx(20, abs=1e-4)
    assert mean_absolute_error(result, reference).item() == pytest.approx(25.5, abs=1e-4)
    assert psnr(reference, reference).item() == math.inf


def test_ssim_and_ms_ssim_equal_pytorch_msssim(pair):
    """pytorch-msssim 1.0.0: ssim and ms_ssim with data_range=1, size_average=False."""
    assert ssim(*pair).tolist() == pytest.approx([0.96579, 0.20327], abs=2e-5)
    assert ms_ssim(*pair).tolist() == pytest.approx([0.98852, 0.61605], abs=2e-5)


def test_equal_pictures_are_wholly_alike(pair):
    _, reference = pair
    assert ssim(reference, reference).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert ms_ssim(reference, reference).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_ms_ssim_refuses_what_its_coarsest_scale_cannot_hold():
    just = torch.rand(1, 3, SMALLEST_SIDE, SMALLEST_SIDE)
    assert ms_ssim(just, just).item() == pytest.approx(1, abs=1e-5)
    small = torch.rand(1, 3, SMALLEST_SIDE - 1, 200)
    with pytest.raises(ValueError, match="200 x 160 are too small for MS-SSIM: use 161"):
        ms_ssim(small, small)
