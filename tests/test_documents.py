"""The documents: what they point to is there, and README leads to each of them."""

import re

import pytest

from lab.pack import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _links(document):
    text = document.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    return [target for target in targets if not target.startswith("https://")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_link_leads_somewhere(document):
    missing = [link for link in _links(document) if not (document.parent / link).exists()]
    assert missing == []


def test_the_readme_leads_to_every_document():
    pages = {f"docs/{document.name}" for document in DOCUMENTS[1:]}
    assert len(pages) >= 8
    assert pages <= set(_links(ROOT / "README.md"))


def test_every_name_on_the_page_of_migration_is_there():
    from graphquant import quant_core

    text = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
    here = [row.split("|")[2] for row in text.splitlines() if row.startswith("| ")]
    called = re.compile(r"`(?:\w+, \w+ = )?([A-Za-z]\w+)(?:\(|\.from_)")
    names = {name for cell in here for name in called.findall(cell)}
    assert {"quantize_component", "plan_component", "DefaultsConfig"} <= names
    assert [name for name in sorted(names) if not hasattr(quant_core, name)] == []


def test_every_template_that_a_page_names_is_there():
    templates = {file.stem for file in (ROOT / "example_workflows").glob("*.json")}
    named = set()
    for document in DOCUMENTS:
        text = " ".join(document.read_text(encoding="utf-8").split())
        for sentence in re.findall(r"[Tt]emplates?:? (\*[^*]+\*(?:,? and \*[^*]+\*)?)", text):
            named |= set(re.findall(r"\*([^*]+)\*", sentence))
    assert len(named) >= 10
    assert named <= templates
