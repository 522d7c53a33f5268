"""Embeddings are compared token by token."""

import pytest
import torch

from graphquant.quant_core.measure.embedding_error import embedding_error


def test_it_is_the_mean_over_tokens_whatever_their_lengths():
    reference = torch.tensor([[[1.0, 0.0], [1000.0, 0.0]]])
    result = torch.tensor([[[0.0, 1.0], [1000.0, 0.0]]])
    error = embedding_error([(result, reference)])
    assert (error.cosine, error.lowest_cosine, error.tokens) == (0.5, 0.0, 2)
    assert error.relative_l2 == pytest.approx(2**0.5 / 2)
    together = torch.cosine_similarity(result.flatten(), reference.flatten(), 0)
    assert together > 0.999  # the long token would hide the other


def test_pairs_of_any_shapes_count_token_by_token():
    generator = torch.Generator().manual_seed(0)
    pairs = [torch.randn(shape, generator=generator) for shape in ((1, 3, 8), (1, 2, 5, 8))]
    error = embedding_error([(pair, 2 * pair) for pair in pairs])
    assert error.tokens == 13
    assert error.cosine == pytest.approx(1) and error.relative_l2 == pytest.approx(0.5)


def test_tokens_of_zeros_have_no_error():
    reference = torch.tensor([[[0.0, 0.0], [3.0, 4.0]]])
    assert embedding_error([(reference, reference)]).tokens == 1
    assert embedding_error([(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))]) is None
    assert embedding_error([]) is None


def test_nan_is_not_a_good_cosine():
    reference = torch.ones(1, 2, 4)
    error = embedding_error([(reference * torch.nan, reference)])
    assert not error.cosine >= 0.99
    assert error.to_dict()["tokens"] == 2
