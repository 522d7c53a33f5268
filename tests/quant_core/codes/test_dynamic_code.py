"""The 8-bit code of bitsandbytes' scales; test_code4.py compares it with the library."""

from graphquant.quant_core.codes.dynamic_code import DYNAMIC_CODE


def test_there_are_256_values_in_order_from_minus_one_to_one():
    assert len(set(DYNAMIC_CODE)) == 256 and list(DYNAMIC_CODE) == sorted(DYNAMIC_CODE)
    assert 0.0 in DYNAMIC_CODE and DYNAMIC_CODE[-1] == 1.0 and -1 < DYNAMIC_CODE[0] < -0.99


def test_each_power_of_ten_has_twice_the_values_of_the_one_below():
    for power in range(7):
        low, high = 10.0 ** (power - 7), 10.0 ** (power - 6)
        inside = [value for value in DYNAMIC_CODE if low < value < high and value != 1.0]
        assert len(inside) == 2**power
        assert all(-value in DYNAMIC_CODE for value in inside)
