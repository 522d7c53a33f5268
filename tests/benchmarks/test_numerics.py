"""The side by side of formats: on Gaussian weights ours are no worse than torchao's defaults."""

import pytest

from benchmarks.numerics.__main__ import markdown, measure
from benchmarks.numerics.cases import synthetic_cases
from benchmarks.numerics.contestants import contestants


@pytest.fixture(scope="module")
def rows():
    competing = [
        each
        for each in contestants()
        if each.name.startswith(("GraphQuant int8", "GraphQuant fp8", "GraphQuant int4", "torchao"))
    ]
    return measure(synthetic_cases(), competing)


def errors(rows, name, figure="weight"):
    """By case, of the contestant called ``name`` in the first group that has it."""
    found = {}
    for row in rows:
        if row["name"] == name:
            found.setdefault(row["case"], row[figure])
    return found


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("GraphQuant int8", "torchao Int8WeightOnlyConfig"),
        ("GraphQuant fp8", "torchao Float8WeightOnlyConfig"),
    ],
)
def test_eight_bits_equal_torchao_s_defaults(rows, ours, theirs):
    for figure in ("weight", "output"):
        assert errors(rows, ours, figure) == pytest.approx(errors(rows, theirs, figure), rel=1e-4)


@pytest.mark.parametrize("theirs", ["", ", asymmetric"])
def test_four_bits_lose_less_than_torchao_s_in_every_case(rows, theirs):
    own = errors(rows, "GraphQuant int4")
    other = errors(rows, f"torchao IntxWeightOnlyConfig{theirs}")
    assert list(own) == list(other) and len(own) == 3
    assert all(own[case] < 0.96 * other[case] for case in own)


def test_searching_the_range_beats_the_extremes_and_half_quadratic(rows):
    own = errors(rows, "GraphQuant int4")
    for other in ("GraphQuant int4 minmax", "GraphQuant int4 hqq"):
        assert all(own[case] < 0.99 * error for case, error in errors(rows, other).items())


def test_the_tables_put_the_contestants_of_a_group_side_by_side(rows):
    text = markdown(rows)
    assert "## int8" in text and "## fp8" in text
    assert "| | Gaussian | Student t, 5 degrees | outlier columns |" in text
    assert "| GraphQuant int8 | 0.0079 / 0.0078 |" in text
