"""The one route that the pack adds to ComfyUI's server."""

import json
import urllib.error
import urllib.request

import pytest
import torch

from graphquant.quant_core import METHODS
from graphquant.quant_core.machine.capability import examine
from graphquant.quant_core.methods import MEASURED


@pytest.fixture
def url(server):
    return f"{server.url}/graphquant/capabilities"


def test_it_names_every_method_and_what_it_runs_as(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        found = json.load(answer)
    assert list(found["methods"]) == [name for name in METHODS if name not in ("none", *MEASURED)]
    assert found["recommended"] in METHODS
    if not torch.cuda.is_available():
        fp8 = found["methods"]["fp8-dynamic"]
        assert (fp8["status"], fp8["runs_as"]) == ("fallback", "fp8-weight-only")
        assert fp8["reason"] and fp8["remedy"]


def test_it_can_be_read_and_nothing_else(url):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(urllib.request.Request(url, b"{}"), timeout=60)
    assert refusal.value.code == 405


def test_each_method_carries_its_compile_warnings_and_what_a_text_encoder_makes_of_it(comfy):
    from graphquant.nodes.routes import capabilities

    methods = capabilities(examine(torch.device("cpu")))["methods"]
    assert set(methods["fp8-dynamic"]["compile"]) == {"reduce-overhead", "max-autotune"}
    assert methods["int8"]["compile"] == {}
    assert methods["int8-dynamic"]["in_text_encoder"] == "int8"
    assert methods["int4"]["in_text_encoder"] == "int4"
    assert methods["int8-dynamic"]["in_quantized_encoder"] == "int8-dynamic"


def test_inputs_that_serve_some_methods_alone_are_told_by_the_methods_formats(comfy):
    from graphquant.nodes.routes import capabilities

    found = capabilities(examine(torch.device("cpu")))
    only_for = found["only_for"]
    assert only_for["max_error"] == ["fastest"]
    assert only_for["size_gib"] == only_for["stock_only"] == ["fit"]
    assert {"int8", "fp8-dynamic", "fastest"} <= set(only_for["granularity"])
    assert not {"int4", "nf4", "fit", "none"} & set(only_for["granularity"])
    assert {"fp8-dynamic", "int8-convrot", "w4a8", "fastest", "fit"} <= set(only_for["exact_steps"])
    assert not {"int8", "int4", "none"} & set(only_for["exact_steps"])
    assert "fp8-static" in found["need_calibration"]
    assert "int8" not in found["need_calibration"]
    ranked = {name for name in METHODS if name.startswith("svdquant")}
    assert set(only_for["rank"]) == ranked
