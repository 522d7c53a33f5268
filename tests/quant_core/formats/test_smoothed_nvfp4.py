"""NVFP4 of a smoothed weight, which reads in the weight's own basis."""

import dataclasses

import pytest
import torch

from graphquant.quant_core.calibration import Calibration
from graphquant.quant_core.formats import SmoothedNVFP4
from graphquant.quant_core.planning.decisions import LayerPlan
from graphquant.quant_core.rounding import CalibratedRounding
from lab.sampling import relative_l2

# A block of 16 columns has large ones and small ones.
SIZES = torch.logspace(-1, 1, 16).repeat(16)


def smoothed(normal):
    """A weight [96, 256] and how it is stored, calibrated on columns of different sizes."""
    x = normal(400, 256, std=1.0, seed=1) * SIZES
    fmt = SmoothedNVFP4("nvfp4")
    layer = LayerPlan("it", "Linear", (96, 256), "float32", "quantize", "", 0, 0, fmt)
    weight = normal(96, 256)
    rounds = CalibratedRounding(Calibration({}, rows={"it": x}))
    return weight, rounds(layer, weight), x


def test_it_is_smoothed_by_a_calibration_and_read_in_its_own_basis(normal):
    weight, stored, x = smoothed(normal)
    scale = stored.pre_quant_scale.float()
    assert scale[0::16].min() > 3 * scale[15::16].max()
    fmt = stored.format
    assert relative_l2(stored.dequantize(), weight) < 0.25
    expected = x @ stored.dequantize().t()
    assert relative_l2(fmt.linear(x, stored, None), expected) < 1e-5
    # Activations of four bits cost more without the smoothing.
    plain = fmt.emulated(x, fmt.quantize(weight), None)
    assert relative_l2(fmt.emulated(x, stored, None), x @ weight.t()) < 0.9 * relative_l2(
        plain, x @ weight.t()
    )


def test_a_low_rank_change_sees_the_activations_as_they_are(normal):
    _, stored, x = smoothed(normal)
    up, down = normal(96, 4, seed=5), normal(4, 256, std=1.0, seed=6)
    fmt = stored.format
    gained = fmt.linear_with_low_rank(x, stored, None, up, down) - fmt.linear(x, stored, None)
    assert relative_l2(gained, x @ (up @ down).t()) < 1e-4


def test_stock_reads_it_as_nvfp4_and_leaves_activations_alone_where_it_shall(normal):
    assert SmoothedNVFP4("nvfp4").stock_marker() == {"format": "nvfp4"}
    marker = SmoothedNVFP4("nvfp4").weight_only().stock_marker()
    assert marker == {"format": "nvfp4", "full_precision_matrix_mult": True}
    with pytest.raises(ValueError, match=r"^No activations"):
        dataclasses.replace(SmoothedNVFP4(), activations="int8")
