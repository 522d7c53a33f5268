"""FP8 codes read by integer arithmetic are PyTorch's values, bit by bit."""

import pytest
import torch

from graphquant.quant_core.kernels.float8_bits import decode_float8, has_bits

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_every_fp8_code_is_decoded_as_pytorch_decodes_it(dtype):
    codes = torch.arange(256).to(torch.uint8).view(dtype)
    assert torch.equal(decode_float8(codes).nan_to_num(nan=1e9), codes.float().nan_to_num(nan=1e9))


def test_signs_and_subnormals_of_a_matrix_come_out_exactly():
    codes = torch.tensor([[0x80, 0x01, 0x81], [0x7E, 0xFE, 0x38]], dtype=torch.uint8).view(E4M3)
    values = decode_float8(codes)
    assert values.tolist() == [[-0.0, 2**-9, -(2**-9)], [448.0, -448.0, 1.0]]
    assert values.dtype == torch.float32 and values[0, 0].signbit()


def test_only_the_two_types_that_are_stored_are_read_by_bits():
    kinds = (E4M3, E5M2, torch.float8_e4m3fnuz, torch.int8, torch.bfloat16)
    assert [has_bits(dtype) for dtype in kinds] == [True, True, False, False, False]
