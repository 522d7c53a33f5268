"""A file says what was done to which model, and passes it on."""

import hashlib
import json

import pytest
from safetensors import safe_open

from graphquant.quant_core.version import VERSION

pytestmark = pytest.mark.usefixtures("comfy")

QUANTIZED = "double_blocks.0.img_attn.qkv"


def test_what_is_loaded_saves_the_same_bytes_again(flux_patcher, tmp_path, quantize, save, load):
    first, again = (tmp_path / f"{name}.safetensors" for name in ("first", "again"))
    for method in ("int8", "int4"):
        save(quantize(flux_patcher, method), first, overwrite=True)
        save(load(first)[0], again, overwrite=True)
        assert first.read_bytes() == again.read_bytes()


def test_the_metadata_say_what_was_done_to_what(flux_patcher, tiny_flux_file, file, quantize, save):
    save(quantize(flux_patcher, "int8", exclude="double_blocks.1"), file)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    assert metadata["graphquant.method"] == "int8"
    assert metadata["graphquant.preset"] == "generic"
    assert metadata["graphquant.version"] == VERSION
    assert metadata["graphquant.source"] == tiny_flux_file.name
    digest = hashlib.sha256(tiny_flux_file.read_bytes()).hexdigest()
    assert metadata["graphquant.source_sha256"] == digest
    kept = json.loads(metadata["graphquant.keep"])
    assert "double_blocks.1.img_attn.qkv" in kept["excluded by double_blocks.1"]
    layers = json.loads(metadata["_quantization_metadata"])["layers"]
    assert layers[QUANTIZED] == {"format": "int8_tensorwise"} and len(layers) == 16
