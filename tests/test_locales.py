"""The translations cover what there is to translate, and nothing that is not there."""

import asyncio
import json
import re

import pytest

from graphquant.quant_core import METHODS
from graphquant.quant_core.machine.capability import EMULATED, FALLBACK, REFUSED
from graphquant.quant_core.planning.decisions import ALREADY, KEEP, QUANTIZE
from graphquant.quant_core.rounding.outcome import COMPENSATED, NEAREST
from lab.pack import ROOT

LOCALES = ROOT / "locales"
TRANSLATIONS = ("zh", "ja")


def _read(language, name):
    return json.loads((LOCALES / language / f"{name}.json").read_text(encoding="utf-8"))


def _placeholders(text):
    return sorted(re.findall(r"\{\w+\}", text))


@pytest.fixture
def nodes(comfy):
    from graphquant.nodes.extension import GraphQuantExtension

    kinds = asyncio.run(GraphQuantExtension().get_node_list())
    return {kind.define_schema().node_id: kind.define_schema() for kind in kinds}


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_every_word_of_the_panel_is_translated_with_its_placeholders(language):
    english = _read("en", "main")["graphquant"]
    translated = _read(language, "main")["graphquant"]
    assert list(translated) == list(english)
    for key, text in english.items():
        assert _placeholders(translated[key]) == _placeholders(text), key


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_every_node_with_its_inputs_and_outputs_is_translated(language, nodes):
    translated = _read(language, "nodeDefs")
    assert set(translated) == set(nodes)
    for node_id, schema in nodes.items():
        entry = translated[node_id]
        assert entry["display_name"] and entry["description"]
        assert list(entry["inputs"]) == [each.id for each in schema.inputs], node_id
        assert len(entry["outputs"]) == len(schema.outputs), node_id


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_every_setting_is_translated(language):
    script = (ROOT / "web" / "graphquant.js").read_text(encoding="utf-8")
    ids = [found.replace(".", "_") for found in re.findall(r'id: "([\w.]+)"', script)]
    assert list(_read(language, "settings")) == ids
    assert len(ids) == 2


def test_every_word_that_the_scripts_use_exists():
    words = set(_read("en", "main")["graphquant"])
    scripts = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "web").glob("*.js"))
    used = set(re.findall(r'\b(?:t|idleNote)\("(\w+)"', scripts))
    columns = {f"column_{key}" for key in re.findall(r'\{ key: "(\w+)"', scripts)}
    statuses = (EMULATED, FALLBACK, REFUSED, "encoder")
    given = {f"{status}Label" for status in statuses} | {"method_config", "method_default"}
    verdicts = {
        key
        for file in (ROOT / "nodes").rglob("*.py")
        for key in re.findall(r'verdict\(\s*"(\w+)"', file.read_text(encoding="utf-8"))
    }
    by_prefix = {word for word in words if word.startswith(("word_", "method_"))}
    assert used | columns | given | verdicts | by_prefix == words


@pytest.mark.parametrize("language", ("en", *TRANSLATIONS))
def test_the_table_of_layers_has_words_for_what_stands_in_it(language):
    words = _read(language, "main")["graphquant"]
    source = (ROOT / "quant_core" / "planning" / "remainder.py").read_text(encoding="utf-8")
    function = source[source.index("def _kind_and_reason") :]
    kinds = set(re.findall(r'return \(?\s*"([^"]+)",', function))
    assert len(kinds) >= 9
    wanted = {*kinds, QUANTIZE, KEEP, ALREADY, COMPENSATED, NEAREST}
    assert {key.removeprefix("word_") for key in words if key.startswith("word_")} == wanted


@pytest.mark.parametrize("language", ("en", *TRANSLATIONS))
def test_every_method_has_a_line_for_the_panel(language):
    words = _read(language, "main")["graphquant"]
    assert [name for name in METHODS if f"method_{name}" not in words] == []
    lines = [words[f"method_{name}"] for name in METHODS]
    assert len(set(lines)) == len(lines)
    assert [line for line in lines if not 5 <= len(line) <= 90] == []


# In these languages what takes 40 words of English takes fewer characters than this.
LONGEST = {"zh": 130, "ja": 150}


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_translated_tooltips_explain_the_choices_that_the_english_ones_do(language, nodes):
    """Choices stand in tooltips as "auto: ..."; in these languages the colon is a wide one."""
    explained = 0
    for node_id, schema in nodes.items():
        for each in schema.inputs:
            tooltip = _read(language, "nodeDefs")[node_id]["inputs"][each.id]["tooltip"]
            assert 0 < len(tooltip) < LONGEST[language], (node_id, each.id)
            for choice in getattr(each, "options", None) or ():
                if re.search(rf"(^|\s){re.escape(str(choice))}: ", each.tooltip):
                    explained += 1
                    assert f"{choice}\uff1a" in tooltip, (node_id, each.id, choice)
    assert explained >= 12
