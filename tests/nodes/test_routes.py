"""The one route that the pack adds to ComfyUI's server."""

import json
import urllib.error
import urllib.request

import pytest
import torch

from graphquant.quant_core import METHODS, Hardware


@pytest.fixture
def url(server):
    return f"{server.url}/graphquant/capabilities"


def test_it_names_every_method_and_what_it_runs_as(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        found = json.load(answer)
    assert list(found["methods"]) == list(METHODS)
    assert found["recommended"] in METHODS
    if not torch.cuda.is_available():
        fp8 = found["methods"]["fp8-dynamic"]
        assert (fp8["native"], fp8["runs_as"]) == (False, "fp8-weight-only")
        assert "which CPU does not have" in fp8["reason"]


def test_it_can_be_read_and_nothing_else(url):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(urllib.request.Request(url, b"{}"), timeout=60)
    assert refusal.value.code == 405


def test_on_hardware_with_fp8_matmuls_every_method_is_native(comfy):
    from graphquant.nodes.routes import capabilities

    found = capabilities(Hardware("cuda", "Test GPU", fp8_matmul=True))
    assert all(method["native"] for method in found["methods"].values())
    assert found["recommended"] == "fp8-dynamic"
    assert set(found["methods"]["fp8-dynamic"]["compile"]) == {"reduce-overhead", "max-autotune"}
