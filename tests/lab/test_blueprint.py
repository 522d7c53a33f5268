"""The subgraph blueprint."""

import json

from lab.blueprint import FILE, blueprint


def test_the_file_is_made_of_the_nodes_as_they_are_now(server):
    assert json.loads(FILE.read_text()) == blueprint(server.object_info)


def test_the_file_is_called_as_the_search_shall_show_it():
    (subgraph,) = json.loads(FILE.read_text())["definitions"]["subgraphs"]
    assert FILE.stem == subgraph["name"] == "Load and Quantize"
    assert "FP8, INT8 or INT4" in subgraph["description"]
