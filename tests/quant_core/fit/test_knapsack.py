"""Choosing options within a budget: never over it, close under it, and as good as trying all."""

import itertools
import random

import pytest

from graphquant.quant_core.fit.knapsack import Option, choose, smallest_size

BITS = (3.25, 3.5, 4.25, 4.5, 5.25, 6.25, 7.25, 8, 16)


def layers(count, seed, bits=BITS):
    """Layers of a model: sizes and sensitivities over three orders of magnitude."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        weights = draw.choice((16, 64, 256, 1024, 4096)) * 1024
        effect = 10 ** draw.uniform(-4, -1)
        made.append(
            [
                Option(int(weights * each / 8), 0.0 if each == 16 else (effect * 2**-each) ** 2)
                for each in bits
            ]
        )
    return made


def nbytes(options, chosen):
    return sum(layer[at].nbytes for layer, at in zip(options, chosen, strict=True))


def cost(options, chosen):
    return sum(layer[at].cost for layer, at in zip(options, chosen, strict=True))


def bound(options, budget):
    """The least cost that any choice could have: Lagrange's dual, sharp but for one layer."""
    slopes = [10**-each for each in [step / 20 for step in range(100, 500)]]
    return max(
        sum(min(each.cost + slope * each.nbytes for each in layer) for layer in options)
        - slope * budget
        for slope in slopes
    )


def test_200_random_sizes_are_never_exceeded_and_met_within_1_percent():
    options = layers(100, seed=1)
    least, most = smallest_size(options), sum(layer[-1].nbytes for layer in options)
    draw = random.Random(2)
    for _ in range(200):
        budget = draw.randint(least, most)
        chosen = choose(options, budget)
        taken = nbytes(options, chosen)
        assert taken <= budget
        # Or what is left is less than any layer's next width.
        assert taken >= 0.99 * budget or all(
            each.nbytes - layer[at].nbytes > budget - taken
            for layer, at in zip(options, chosen, strict=True)
            for each in layer[at + 1 :]
        )


@pytest.mark.parametrize("seed", range(20))
def test_of_five_layers_it_is_within_2_percent_of_the_best_of_all_choices(seed):
    options = layers(5, seed, BITS[::2])
    least, most = smallest_size(options), sum(layer[-1].nbytes for layer in options)
    budget = least + (most - least) * (seed + 1) // 30
    best = min(
        cost(options, each)
        for each in itertools.product(range(len(options[0])), repeat=5)
        if nbytes(options, each) <= budget
    )
    assert cost(options, choose(options, budget)) <= 1.02 * best + 1e-18


def test_a_model_of_1000_layers_comes_within_a_thousandth_of_the_bound():
    options = layers(1000, seed=3)
    budget = int(smallest_size(options) * 1.4)
    chosen = choose(options, budget)
    assert nbytes(options, chosen) <= budget
    assert cost(options, chosen) <= 1.001 * bound(options, budget)


def test_exchanges_spend_what_the_hull_leaves():
    """Narrowing the first pays for widening the second, which no single step can."""
    options = [
        [Option(10, 5.0), Option(20, 4.0)],
        [Option(10, 100.0), Option(25, 0.0)],
    ]
    assert choose(options, 35) == [0, 1]
    assert choose(options, 34) == [1, 0]


def test_dominated_options_are_never_taken():
    options = [[Option(10, 5.0), Option(12, 6.0), Option(14, 1.0), Option(14, 2.0)]]
    assert [choose(options, size)[0] for size in (10, 12, 13, 14, 99)] == [0, 0, 0, 2, 2]


def test_a_budget_below_the_smallest_options_is_refused():
    options = layers(3, seed=4)
    assert choose(options, smallest_size(options)) == [0, 0, 0]
    with pytest.raises(ValueError, match="The smallest options take"):
        choose(options, smallest_size(options) - 1)


def test_no_layers_need_no_room():
    assert choose([], 0) == []
