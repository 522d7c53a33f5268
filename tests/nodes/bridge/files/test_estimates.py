"""Sizes of listed files over ComfyUI's server: read from their headers, and of no other file."""

import json
import urllib.error
import urllib.parse
import urllib.request

import pytest

from lab.miniature import TRANSFORMER


def ask(server, **query):
    url = f"{server.url}/graphquant/estimate?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


@pytest.fixture
def listed(models_folder):
    """A file that the server lists among diffusion models."""
    import shutil

    target = models_folder / "estimate-me.safetensors"
    shutil.copyfile(TRANSFORMER, target)
    yield target.name
    target.unlink()


def test_a_listed_file_has_a_size_for_each_method(server, listed):
    found = ask(server, folder="diffusion_models", name=listed)
    assert (found["architecture"], found["component"]) == ("flux1", "transformer")
    sizes = {each["method"]: each["nbytes"] for each in found["methods"]}
    assert sizes["int4"] < 0.55 * sizes["int8"] * 1.1 < 0.7 * found["nbytes"]
    assert found["device"]["total"] > 0


@pytest.mark.parametrize(
    "query",
    [
        {"folder": "diffusion_models", "name": "../../etc/passwd"},
        {"folder": "diffusion_models", "name": "/etc/passwd"},
        {"folder": "configs", "name": "v1-inference.yaml"},
        {"folder": "..", "name": "x"},
        {"name": "x"},
        {},
    ],
    ids=str,
)
def test_what_is_not_listed_is_not_read(server, query):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        ask(server, **query)
    assert refusal.value.code == 404
    assert "There is no file" in json.load(refusal.value)["problem"]


def test_a_file_that_is_not_a_model_is_a_problem_in_words(server, models_folder):
    (models_folder / "broken.safetensors").write_bytes(b"<html>")
    with pytest.raises(urllib.error.HTTPError) as refusal:
        ask(server, folder="diffusion_models", name="broken.safetensors")
    assert json.load(refusal.value)["problem"]
    (models_folder / "broken.safetensors").unlink()
