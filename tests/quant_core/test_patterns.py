"""Patterns mean whole dotted components or globs over the full name, never substrings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquant.quant_core.patterns import first_match, matches, parse_patterns

part = st.text("abz_019", min_size=1, max_size=4)
parts = st.lists(part, min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("norm", "blocks.0.norm", True),
        ("norm", "blocks.0.norm.linear", True),
        ("norm", "blocks.0.normal_proj", False),
        ("norm", "blocks.0.norm1", False),
        ("blocks", "vace_blocks.0.attn", False),
        ("blocks", "blocks.0.attn", True),
        ("mod", "model.layers.0", False),
        ("mod", "layers.0.mod", True),
        ("blocks.1", "blocks.1.attn", True),
        ("blocks.1", "blocks.10.attn", False),
        ("blocks.1", "xblocks.1.attn", False),
        ("blocks.attn", "blocks.0.attn", False),
        ("Blocks", "blocks.0.attn", False),
        ("blocks.0.attn", "blocks.0.attn", True),
        ("*norm*", "blocks.0.normal_proj", True),
        ("*norm", "blocks.0.norm.linear", False),
        ("blocks.*.attn", "blocks.0.attn", True),
        ("blocks.*.attn", "vace_blocks.0.attn", False),
        ("blocks.?.attn", "blocks.10.attn", False),
        ("blocks.[0-2].attn", "blocks.2.attn", True),
        ("blocks.[!0-2].attn", "blocks.2.attn", False),
        ("*.ATTN", "blocks.0.attn", False),
    ],
)
def test_a_pattern_means_whole_components_or_is_a_glob_over_the_whole_name(pattern, name, expected):
    assert matches(pattern, name) is expected


@given(parts, st.data())
def test_any_run_of_a_names_components_means_it(components, data):
    start = data.draw(st.integers(0, len(components) - 1))
    stop = data.draw(st.integers(start + 1, len(components)))
    assert matches(".".join(components[start:stop]), ".".join(components))


@given(parts, part)
def test_a_single_component_means_a_name_exactly_if_it_is_one_of_its_components(components, word):
    assert matches(word, ".".join(components)) == (word in components)


@given(st.text("ab.", max_size=6))
def test_one_star_means_every_name(name):
    assert matches("*", name)


def test_the_first_match_is_the_first_in_the_list():
    assert first_match(("x", "*.b", "a"), "a.b") == "*.b"
    assert first_match(("x",), "a.b") is None
    assert first_match((), "a.b") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ()),
        ("", ()),
        (" \n ,, \n", ()),
        ("a", ("a",)),
        ("a\n b.c \r\n*d*", ("a", "b.c", "*d*")),
        ("a, b ,a", ("a", "b")),
        (["b", " a ", "", "b"], ("b", "a")),
        (("a",), ("a",)),
    ],
)
def test_patterns_come_one_a_line_or_by_commas_or_as_a_list(text, expected):
    assert parse_patterns(text) == expected
