"""Stock nodes before and after Quantize Model do what they do without it."""

import pytest
import torch

from lab.company import COMPANY

pytestmark = pytest.mark.usefixtures("comfy")


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("name", COMPANY)
def test_a_stock_node_works_before_and_after_quantizing(flux_patcher, sample, name):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    def quantize(model):
        return GQQuantizeModel.execute(model=model, method="int8")[0]

    node = COMPANY[name]
    plain = sample(flux_patcher)
    error = relative(sample(quantize(flux_patcher)), plain)
    expected = sample(node(flux_patcher))
    for result in (node(quantize(flux_patcher)), quantize(node(flux_patcher))):
        assert 1e-4 < relative(sample(result), expected) < 3 * error
    assert torch.equal(sample(flux_patcher), plain)
