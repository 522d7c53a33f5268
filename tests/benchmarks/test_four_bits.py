"""Products of four bits by four are counted as such, and their table has the mean of layers."""

import pytest

from benchmarks.four_bit_products import four_bit_linear, runs_in_four_bits
from benchmarks.four_bits import markdown, means
from graphquant.quant_core.formats import SvdQuant
from lab.fake_gpu import ADA, AMPERE, HOPPER, fake_gpu

M, K, N = 4608, 3072, 9216
INT4, NVFP4 = SvdQuant("int4", 32, "int4", 256), SvdQuant("nvfp4", 32, "nvfp4")


def test_int4_is_multiplied_where_the_gpu_has_it_and_nowhere_else():
    for gpu, expected in ((ADA, True), (AMPERE, True), (HOPPER, False)):
        with fake_gpu(gpu) as session:
            assert runs_in_four_bits(session, INT4) == expected
            assert not runs_in_four_bits(session, NVFP4)
            assert not runs_in_four_bits(session, INT4.weight_only())


@pytest.mark.parametrize(("fmt", "kind"), [(INT4, "int4"), (NVFP4, "fp4")])
def test_the_product_is_of_four_bits_and_the_branch_is_thin(fmt, kind):
    with fake_gpu(ADA) as session:
        weight = session.weight(fmt, (N, K))
        y = four_bit_linear(session, weight, session.empty(N), session.empty(M, K))
        operations = session.trace.operations
    assert y.shape == (M, N)
    assert sum(op.flops for op in operations if op.kind == kind) == 2 * M * N * K
    codes = sum(op.read for op in operations if op.name == "scaled_mm")
    assert codes < 0.6 * (M * K + N * K) + 2 * 32 * (M + N) + 2 * N


def test_few_rows_take_the_formats_own_way():
    with fake_gpu(ADA) as session:
        weight = session.weight(INT4, (N, K))
        four_bit_linear(session, weight, None, session.empty(1, K))
        assert not any(op.kind == "int4" for op in session.trace.operations)


def test_the_table_has_the_mean_of_the_layers():
    rows = [
        {"layer": layer, "way": way, "nearest": error, **more}
        for layer, error in (("a", 0.1), ("b", 0.3))
        for way, more in (("plain", {}), ("svdquant-int4", {"compensated": error / 2}))
    ]
    found = means(rows)
    assert found["plain"] == {"nearest": pytest.approx(0.2)}
    assert found["svdquant-int4"]["compensated"] == pytest.approx(0.1)
    text = markdown({"layers": {"tiny": rows}})
    assert "| tiny, 2 layers | to nearest | compensated |" in text
    assert "| svdquant-int4 | 0.2000 | 0.1000 |" in text
