"""What README and the documents claim in figures is what the code gives."""

import re

import pytest
import torch

from graphquant.quant_core.formats import Float8
from graphquant.quant_core.methods import METHODS
from lab.formats import FIGURES
from lab.pack import ROOT
from lab.sampling import relative_l2

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "web" / "docs").glob("*.md")]
SHAPE = (1024, 3072)


@pytest.fixture(scope="module")
def product():
    """Gaussian activations and weights: (x, weight, their product)."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(SHAPE, generator=generator) * 0.02
    x = torch.randn(256, SHAPE[1], generator=generator)
    return x, weight, x @ weight.T


def _rows():
    """README's table of cards: method -> (memory, because)."""
    cells = [line.split(" | ") for line in README.splitlines() if line.startswith("| ")]
    rows = [row for row in cells if len(row) == 4 and row[1].startswith("`")]
    return {row[1].split("`")[1]: (row[2], row[3]) for row in rows}


@pytest.mark.parametrize(
    "method", ["int8-convrot", "fp8-dynamic", "int8", "fp8-weight-only", "nf4-fine"]
)
def test_a_method_takes_the_share_of_bf16s_memory_that_the_table_says(method):
    fmt = METHODS[method].choose(SHAPE, "per-row").format
    share = fmt.nbytes(SHAPE) / (2 * SHAPE[0] * SHAPE[1])
    assert _rows()[method][0].startswith(f"{share:.2f} x")


def test_an_int8_product_of_rotated_operands_errs_a_third_of_an_fp8_one(product):
    x, weight, exact = product
    rotated, fp8 = METHODS["int8-convrot"].choose(SHAPE, "per-row").format, Float8()
    error = relative_l2(rotated.linear(x, rotated.quantize(weight), None), exact)
    rounded = [fp8.dequantize(fp8.quantize(each), torch.float32) for each in (x, weight)]
    fp8_error = relative_l2(rounded[0] @ rounded[1].T, exact)
    assert (error, fp8_error) == (pytest.approx(0.012, abs=5e-4), pytest.approx(0.037, abs=1e-3))
    assert "errs by 0.012, an FP8 one by 0.037" in _rows()["int8-convrot"][1]


def test_nf4_fine_loses_a_fifth_less_than_int4_and_int8_the_least():
    def error(name):
        return FIGURES[METHODS[name].choose(SHAPE, "per-row").format].error

    assert error("nf4-fine") / error("int4") == pytest.approx(0.8, abs=0.01)
    assert "a fifth less than `int4`" in _rows()["nf4-fine"][1]
    assert f"{error('int8'):.4f} of a weight" in _rows()["int8"][1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sizes_are_in_binary_units_everywhere(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r".*\b[0-9.]+ ?[KMG]B\b.*|.*\b[KMG]B/s.*|.*\b[KMG]B of\b.*", text) == []
