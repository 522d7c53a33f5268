"""What a quantized file's metadata say, what they inherit, and that a source is hashed once."""

import hashlib
import json

from graphquant.quant_core import plan_component
from graphquant.quant_core.conversion.metadata import (
    bytes_to_hash,
    inheritable,
    plan_metadata,
    source_metadata,
)
from graphquant.quant_core.conversion.source import open_model
from graphquant.quant_core.version import VERSION


def test_a_plan_adds_its_method_to_those_before_and_says_what_it_kept(model_file):
    with open_model(model_file) as model:
        plan = plan_component(model.layers(), "int8", preset="flux1")
    written = plan_metadata(plan, {"graphquant.method": "int4", "title": "x"})
    assert written["graphquant.method"] == "int4, int8"
    assert (written["graphquant.preset"], written["title"]) == ("flux1", "x")
    kept = json.loads(written["graphquant.keep"])
    assert sum(map(len, kept.values())) == 6
    assert any("img_in" in names for names in kept.values())


def test_what_is_true_of_the_source_alone_is_not_inherited():
    source = {"format": "pt", "modelspec.hash_sha256": "0x1", "modelspec.title": "x"}
    assert inheritable(source) == {"modelspec.title": "x"}
    assert inheritable(source | {"tensor_names": "[]"}) == {}


def test_a_source_is_named_and_hashed_once_while_it_stays_as_it_is(tmp_path):
    path, read = tmp_path / "source.bin", []
    path.write_bytes(b"abc" * 1000)
    assert bytes_to_hash(str(path)) == 3000
    first = source_metadata(str(path), read.append)
    assert first["graphquant.source"] == "source.bin"
    assert first["graphquant.source_sha256"] == hashlib.sha256(b"abc" * 1000).hexdigest()
    assert bytes_to_hash(str(path)) == 0
    assert source_metadata(str(path), read.append) == first and sum(read) == 3000
    path.write_bytes(b"abd" * 1001)
    assert source_metadata(str(path), read.append) != first and sum(read) == 3000 + 3003


def test_without_a_source_the_version_stands_alone(tmp_path):
    alone = {"graphquant.version": VERSION}
    assert source_metadata(None, lambda _: None) == alone
    assert source_metadata(str(tmp_path / "gone"), lambda _: None) == alone
