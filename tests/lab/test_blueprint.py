"""The subgraph blueprint."""

import json

from lab.blueprint import FILE, blueprint


def test_the_file_is_made_of_the_nodes_as_they_are_now(server):
    assert json.loads(FILE.read_text()) == blueprint(server.object_info)


def test_the_search_finds_it_by_a_name_with_words_and_by_the_aliases():
    made = json.loads(FILE.read_text())
    (subgraph,) = made["definitions"]["subgraphs"]
    assert FILE.stem == subgraph["name"] == "Load and Quantize"
    assert {"fp8", "int8", "int4", "VRAM"} <= set(made["extra"]["BlueprintSearchAliases"])
