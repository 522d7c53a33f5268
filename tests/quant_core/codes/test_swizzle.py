"""Block scales stand where the tensor cores, and ComfyUI's stock layouts, look for them."""

import pytest
import torch

from graphquant.quant_core.codes.swizzle import swizzle, swizzled_shape, unswizzle


@pytest.mark.parametrize("shape", [(1, 1), (128, 4), (130, 17), (32, 3), (300, 24)])
def test_the_layout_is_comfy_kitchens_and_can_be_undone(shape):
    utils = pytest.importorskip("comfy_kitchen.float_utils")
    scales = torch.randint(0, 256, shape, dtype=torch.uint8)
    swizzled = swizzle(scales)
    assert swizzled.shape == swizzled_shape(*shape)
    assert torch.equal(swizzled, utils.to_blocked(scales, flatten=False))
    assert torch.equal(unswizzle(swizzled, *shape), scales)
