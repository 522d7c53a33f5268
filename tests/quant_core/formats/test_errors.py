"""What each format stores and loses, to the figure that the documentation tells."""

from pathlib import Path

import pytest
import torch.nn.functional as F

from lab.formats import FIGURES
from lab.sampling import relative_l2

NUMERICS = Path(__file__).parents[3] / "docs" / "numerics.md"

every_figure = pytest.mark.parametrize(("fmt", "figures"), FIGURES.items(), ids=repr)


@pytest.fixture(scope="module")
def gaussian():
    from tests.quant_core.conftest import seeded_normal

    return seeded_normal(1024, 3072)


@every_figure
def test_the_bits_a_weight_are_stored_to_the_byte(fmt, figures, gaussian):
    assert 8 * fmt.nbytes((1024, 3072)) / (1024 * 3072) == pytest.approx(figures.bits, abs=1e-4)
    weight = fmt.quantize(gaussian[:64])
    assert sum(part.untyped_storage().nbytes() for part in weight.tensors.values()) == fmt.nbytes(
        (64, 3072)
    )


@every_figure
def test_the_error_is_the_documented_one_and_no_worse_than_the_original_librarys(
    fmt, figures, gaussian
):
    error = relative_l2(fmt.quantize(gaussian).dequantize(), gaussian)
    assert error == pytest.approx(figures.error, abs=6e-5)
    if figures.reference is not None:
        assert error <= 1.05 * figures.reference


@every_figure
def test_the_product_errs_as_the_weights_and_activations_do(fmt, figures, gaussian, normal):
    x = normal(64, 3072, std=1.0, seed=1)
    error = relative_l2(fmt.linear(x, fmt.quantize(gaussian), None), F.linear(x, gaussian))
    activations = 0.0085 if getattr(fmt, "activations", None) else 0.0
    assert error == pytest.approx((figures.error**2 + activations**2) ** 0.5, rel=0.04)


def test_the_documentation_tells_these_figures():
    text = NUMERICS.read_text(encoding="utf-8")
    missing = [
        f"{fmt}: {figures.bits:.2f} bits, {figures.error:.4f}"
        for fmt, figures in FIGURES.items()
        if f"| {fmt} | {figures.bits:.2f} | {figures.error:.4f} |" not in text
    ]
    assert missing == []
