"""A matrix is taken by whole rows, a mebibyte of float32 at a time, sixteen on a GPU."""

import pytest
import torch

from graphquant.quant_core.kernels.blocks import in_one_block, is_traced, row_blocks


def rows_of(matrix):
    return [(block.start, min(block.stop, len(matrix))) for block in row_blocks(matrix)]


@pytest.mark.parametrize(
    ("shape", "blocks"),
    [
        ((600, 1024), [(0, 256), (256, 512), (512, 600)]),
        ((256, 1024), [(0, 256)]),
        ((3, 300_000), [(0, 1), (1, 2), (2, 3)]),  # a row longer than a block is one block
        ((0, 64), []),
    ],
)
def test_blocks_are_whole_rows_of_a_mebibyte_of_float32(shape, blocks):
    matrix = torch.empty(shape)
    assert rows_of(matrix) == blocks
    assert in_one_block(matrix) == (len(blocks) <= 1)


def test_on_a_gpu_a_block_is_sixteen_mebibytes():
    matrix = torch.empty(600, 1024, device="meta")
    assert rows_of(matrix) == [(0, 600)] and in_one_block(matrix)
    large = torch.empty(6000, 1024, device="meta")
    assert rows_of(large) == [(0, 4096), (4096, 6000)] and not in_one_block(large)


def test_what_torch_compile_sees_is_one_block():
    class Subclass(torch.Tensor):
        pass

    matrix = torch.empty(600, 1024).as_subclass(Subclass)
    assert is_traced(matrix) and rows_of(matrix) == [(0, 600)] and in_one_block(matrix)
    assert not is_traced(torch.nn.Parameter(torch.empty(1)))
