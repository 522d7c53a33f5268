"""The example workflows tell where the public files lie that they name, and nothing invented."""

import importlib.util
import json
from pathlib import Path

import pytest

from lab.examples import EXAMPLES
from lab.examples.public_files import public_files

# Written by the example itself.
WITHOUT_ADDRESS = {"flux1-dev-int8.safetensors"}


def _offered(workflow):
    return [
        file for node in workflow["nodes"] for file in node.get("properties", {}).get("models", [])
    ]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_offers_every_public_file_that_it_names(example):
    inputs = [node["inputs"] for node in example.prompt.values()]
    values = [value for each in inputs for value in each.values() if isinstance(value, str)]
    named = {value for value in values if value.endswith(".safetensors")}
    offered = _offered(json.loads(example.file.read_text()))
    assert offered == [file for each in inputs for file in public_files(each)]
    assert {file["name"] for file in offered} == named - WITHOUT_ADDRESS


def test_every_address_stands_in_a_template_of_comfyuis():
    package = importlib.util.find_spec("comfyui_workflow_templates_json")
    if package is None:
        pytest.skip("ComfyUI's templates are not installed as JSON in this environment")
    folder = Path(package.submodule_search_locations[0]) / "templates"
    texts = [file.read_text(encoding="utf-8") for file in folder.glob("*.json")]
    files = [
        file
        for each in EXAMPLES
        for node in each.prompt.values()
        for file in public_files(node["inputs"])
    ]
    urls = {file["url"] for file in files}
    assert len(urls) == 14
    assert [url for url in sorted(urls) if not any(f'"{url}"' in text for text in texts)] == []
    assert all(file["url"].endswith(f"/{file['name']}") for file in files)
