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


def test_a_table_wider_than_a_preview_as_text_becomes_a_list_that_wraps_well():
    from graphquant.nodes.shared.aligned import aligned

    assert aligned(REPORT, width=27) == aligned(REPORT)
    assert aligned(REPORT, width=26).splitlines() == [
        "worst: b",
        "",
        "- a",
        "  bytes 9",
        "- blocks.10",
        "  bytes 12345",
        "",
        "- a note | with a bar",
    ]


def test_a_list_names_numbers_and_leaves_out_what_was_not_measured():
    from graphquant.nodes.shared.aligned import WIDTH, aligned

    rows = ["| seed | L2 | SSIM | verdict |", "| ---: | ---: | ---: | --- |"]
    rows.append(f"| 7 | 0.05 | - | pass{'.' * WIDTH} |")
    assert aligned("\n".join(rows)).splitlines() == ["- seed 7", f"  L2 0.05; pass{'.' * WIDTH}"]
