"""Every node has its page of help, with a picture."""

import asyncio
import re

import pytest

from lab.pack import ROOT

DOCS = ROOT / "web" / "docs"


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
