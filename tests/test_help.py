"""Every node has its page of help, with a picture."""

import asyncio
import json
import re
from collections import Counter

import pytest

from lab.pack import ROOT

DOCS = ROOT / "web" / "docs"
LOCALES = ROOT / "locales"


@pytest.fixture
def kinds(comfy):
    from graphquant.nodes.extension import GraphQuantExtension

    found = asyncio.run(GraphQuantExtension().get_node_list())
    return {kind.define_schema().node_id: kind.define_schema() for kind in found}


def test_there_is_a_page_for_every_node_and_none_beside(kinds):
    assert {page.stem for page in DOCS.glob("*.md")} == set(kinds)


def test_every_page_begins_with_the_nodes_name_and_has_a_picture_that_exists(kinds):
    for kind, schema in kinds.items():
        page = (DOCS / f"{kind}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {schema.display_name.split(' (')[0]}\n"), kind
        pictures = re.findall(r"!\[.+\]\((.+)\)", page)
        assert pictures == [f"{kind}.png"], kind
        assert (DOCS / pictures[0]).stat().st_size > 10_000, kind


def test_every_input_stands_on_its_page(kinds):
    for kind, schema in kinds.items():
        page = (DOCS / f"{kind}.md").read_text(encoding="utf-8")
        missing = [each.id for each in schema.inputs if f"**{each.id}**" not in page]
        assert missing == [], kind


def _shape(page):
    """What a page and its translations share: headings, rows of tables, points, code, pictures."""
    text = re.sub(r"```.*?```", "```", page, flags=re.DOTALL)
    lines = text.splitlines()
    return {
        "headings": [re.match(r"#+", line)[0] for line in lines if line.startswith("#")],
        "rows": [line.count("|") for line in lines if line.lstrip().startswith("|")],
        "points": sum(line.startswith("- ") for line in lines),
        "blocks": re.findall(r"```.*?```", page, flags=re.DOTALL),
        "code": sorted(re.findall(r"`([^`\n]+)`", text)),
        "picture": re.findall(r"\]\((.+)\)", page),
    }


def _figures(page):
    """Measured and counted ones; small numbers are words in some languages."""
    return Counter(re.findall(r"\d*\.\d+|\d{2,}", re.sub(r"```.*?```", "", page, flags=re.DOTALL)))


@pytest.mark.parametrize("language", ("zh", "ja"))
def test_every_page_is_translated_heading_by_heading_and_row_by_row(language):
    for english in DOCS.glob("*.md"):
        page = (DOCS / english.stem / f"{language}.md").read_text(encoding="utf-8")
        original = english.read_text(encoding="utf-8")
        assert _shape(page) == _shape(original), english.stem
        assert _figures(original) - _figures(page) == Counter(), english.stem
    assert {page.parent.name for page in DOCS.glob(f"*/{language}.md")} == {
        page.stem for page in DOCS.glob("*.md")
    }


@pytest.mark.parametrize("language", ("zh", "ja"))
def test_every_translated_page_begins_with_the_translated_name_and_has_every_input(language, kinds):
    names = json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
    for kind, schema in kinds.items():
        page = (DOCS / kind / f"{language}.md").read_text(encoding="utf-8")
        title = names[kind]["display_name"].split(" (")[0]
        assert page.startswith(f"# {title}\n"), kind
        assert [each.id for each in schema.inputs if f"**{each.id}**" not in page] == [], kind
