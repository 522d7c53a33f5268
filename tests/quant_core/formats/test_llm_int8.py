"""LLM.int8(): bitsandbytes' codes, and outlier columns that INT8 does not touch."""

import pytest
import torch
import torch.nn.functional as F

from graphquant.quant_core.formats import Int8, LlmInt8
from lab.sampling import relative_l2


@pytest.fixture
def outliers(normal):
    """Tokens of which two columns are 40 times as large as the others."""
    x = normal(32, 256, std=1.0, seed=1)
    x[:, [7, 200]] *= 40
    return x


def test_weights_are_bitsandbytes_own(normal):
    bnb = pytest.importorskip("bitsandbytes.functional")
    weight = normal(64, 336, dtype=torch.float16)
    codes, largest, _ = bnb.int8_vectorwise_quant(weight.clone())
    ours = LlmInt8().quantize(weight)
    assert torch.equal(ours.qdata, codes)
    assert torch.allclose(ours.scale.view(-1) * 127, largest, rtol=1e-6)


def test_the_product_is_bitsandbytes_own(normal, outliers):
    pytest.importorskip("bitsandbytes")
    ops = torch.ops.bitsandbytes
    x, weight = outliers.half(), normal(64, 256, dtype=torch.float16)
    codes, rows, columns = ops.int8_vectorwise_quant(x.clone(), 6.0)
    stored, scale, _ = ops.int8_vectorwise_quant(weight.clone(), 0.0)
    expected, _ = ops.int8_mixed_scaled_mm(x.clone(), codes, stored, rows, scale, columns, None)
    found = LlmInt8().linear(x, LlmInt8().quantize(weight), None)
    assert relative_l2(found, expected) < 1e-3


def test_outlier_columns_cost_the_others_no_precision(normal, outliers):
    weight = normal(64, 256)
    exact = F.linear(outliers, weight)
    kept = relative_l2(LlmInt8().linear(outliers, LlmInt8().quantize(weight), None), exact)
    plain = Int8(activations="int8")
    rounded = relative_l2(plain.linear(outliers, plain.quantize(weight), None), exact)
    none = LlmInt8(threshold=0.0)
    never = relative_l2(none.linear(outliers, none.quantize(weight), None), exact)
    assert kept < 0.011
    assert min(rounded, never) > 1.4 * kept


def test_it_compiles_into_one_graph_and_computes_the_same(normal, outliers):
    weight, bias = LlmInt8().quantize(normal(64, 256)), normal(64, std=1.0, seed=2)

    def product(x):
        return LlmInt8().linear(x, weight, bias)

    compiled = torch.compile(product, backend="eager", fullgraph=True)
    assert relative_l2(compiled(outliers), product(outliers)) < 1e-5
    few = outliers.clamp(-1, 1)
    assert relative_l2(compiled(few), product(few)) < 1e-5
