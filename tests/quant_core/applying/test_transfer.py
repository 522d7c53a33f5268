"""The way to a GPU and back, in pieces; where there is no GPU, of the pieces alone."""

import pytest
import torch

from graphquant.quant_core.applying.transfer import _PIECE, Transfer, copy_in_pieces

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.float32])
@pytest.mark.parametrize("size", [7, 64, 1000])
def test_every_byte_arrives_however_the_pieces_fall(size, dtype, normal):
    source = normal(3, size, std=20.0).to(dtype)
    target = torch.zeros_like(source)
    copy_in_pieces(source, target, torch.empty(64, dtype=torch.uint8))
    assert torch.equal(target.view(torch.uint8), source.view(torch.uint8))


def test_between_cpu_and_cpu_nothing_is_copied(normal):
    weight = normal(300, 300)
    assert Transfer().to(weight, CPU) is weight and Transfer().to(weight, "cpu") is weight


@pytest.mark.parametrize(
    ("shape", "detour"), [((4,), False), ((300, 300), True), ((_PIECE // 2, 1), True)]
)
def test_what_is_large_and_contiguous_takes_the_detour(shape, detour):
    transfer, gpu = Transfer(), torch.device("cuda")
    tensor = torch.empty(shape, dtype=torch.bfloat16)
    assert transfer._needs_detour(tensor, gpu) is detour
    assert not transfer._needs_detour(tensor, torch.device("mps"))
    assert not transfer._needs_detour(tensor.expand(2, *shape), gpu)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(3,), (500, 700), (5000, 16000)])
def test_a_weight_comes_back_from_a_gpu_as_it_went(shape, normal):
    transfer, weight = Transfer(), normal(*shape).bfloat16()
    there = transfer.to(weight, "cuda")
    assert there.is_cuda and torch.equal(there.cpu(), weight)
    back = transfer.to(there, CPU)
    assert torch.equal(back, weight) and not back.is_pinned()
