"""A report's tables as text: columns under each other, and still the same Markdown."""

import pytest

pytestmark = pytest.mark.usefixtures("comfy")

REPORT = """worst: b

| layer | bytes | why |
| --- | ---: | --- |
| a | 9 | - |
| blocks.10 | 12345 |  |

- a note | with a bar"""


def test_columns_are_padded_to_their_widest_cell_and_numbers_to_the_right():
    from graphquant.nodes.shared.aligned import aligned

    assert aligned(REPORT).splitlines()[2:6] == [
        "| layer     | bytes | why |",
        "| --------- | ----: | --- |",
        "| a         |     9 | -   |",
        "| blocks.10 | 12345 |     |",
    ]


def test_other_lines_stay_and_a_second_pass_changes_nothing():
    from graphquant.nodes.shared.aligned import aligned

    lines = aligned(REPORT).splitlines()
    assert [lines[0], *lines[6:]] == ["worst: b", "", "- a note | with a bar"]
    assert aligned("\n".join(lines)) == "\n".join(lines)
    assert aligned("no table") == "no table"
