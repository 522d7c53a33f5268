"""FP8 in blocks of 128 x 128, as DeepSeek's and vLLM's checkpoints hold it."""

import pytest
import torch

from graphquant.quant_core.formats import BlockFloat8, Float8
from lab.sampling import relative_l2


def test_each_block_has_a_scale_of_its_own(normal):
    weight = normal(256, 384)
    weight[:128, :128] *= 1000
    stored = BlockFloat8().quantize(weight)
    assert stored.scale.shape == (2, 3)
    largest = weight.unflatten(0, (2, 128)).unflatten(2, (3, 128)).abs().amax(dim=(1, 3))
    assert torch.equal(stored.scale, largest / 448)
    for rows in (slice(128), slice(128, 256)):
        for columns in (slice(128), slice(128, 256), slice(256, 384)):
            block = weight[rows, columns]
            alone = Float8(granularity="per-tensor").quantize(block)
            assert torch.equal(stored.qdata[rows, columns].float(), alone.qdata.float())
            assert relative_l2(stored.dequantize()[rows, columns], block) < 0.027


@pytest.mark.parametrize("shape", [(100, 300), (1, 129), (257, 128)])
def test_edge_blocks_are_smaller(shape, normal):
    weight = normal(*shape)
    stored = BlockFloat8().quantize(weight)
    assert stored.scale.shape == (-(-shape[0] // 128), -(-shape[1] // 128))
    assert (
        stored.scale[-1, -1]
        == weight[(shape[0] - 1) // 128 * 128 :, (shape[1] - 1) // 128 * 128 :].abs().max() / 448
    )
    assert relative_l2(stored.dequantize(), weight) < 0.028
