"""A file is converted a layer at a time: what is not quantized stays byte for byte."""

import json
import subprocess
import sys
import weakref

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from graphquant.quant_core.calibration import Calibration, fingerprint_of
from graphquant.quant_core.conversion import convert as module
from graphquant.quant_core.conversion.convert import convert
from graphquant.quant_core.conversion.source import open_model
from graphquant.quant_core.errors import (
    CalibrationError,
    NonFiniteWeightError,
    NothingToQuantizeError,
    PatternError,
    StorageError,
    UnknownNameError,
)
from graphquant.quant_core.fit import Fit
from graphquant.quant_core.formats import Int8
from graphquant.quant_core.rounding import CalibratedRounding, shifted_bias
from lab.pack import ROOT

QUANTIZED = (
    "double_blocks.0.img_attn.qkv",
    "double_blocks.0.img_attn.proj",
    "single_blocks.0.linear1",
    "single_blocks.0.linear2",
)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out" / "converted.safetensors"


def shards(folder, tensors, count=3):
    """``tensors`` in ``count`` files with an index; returns the index."""
    names = sorted(tensors)
    weight_map = {}
    for number in range(count):
        shard = f"model-{number + 1:05}-of-{count:05}.safetensors"
        mine = {name: tensors[name] for name in names[number::count]}
        save_file(mine, folder / shard, {"format": "pt"})
        weight_map |= dict.fromkeys(mine, shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def test_quantized_layers_are_the_formats_and_all_else_is_the_source_s(model_file, target, tensors):
    done = convert(model_file, target, "int8")
    found = load_file(target)
    for layer in QUANTIZED:
        expected = Int8().quantize(tensors[f"{layer}.weight"])
        assert torch.equal(found.pop(f"{layer}.weight"), expected.qdata)
        assert torch.equal(found.pop(f"{layer}.weight_scale"), expected.scale)
        assert json.loads(bytes(found.pop(f"{layer}.comfy_quant"))) == {"format": "int8_tensorwise"}
    others = {k: v for k, v in tensors.items() if k.removesuffix(".weight") not in QUANTIZED}
    assert found.keys() == others.keys()
    assert all(found[k].dtype == v.dtype and torch.equal(found[k], v) for k, v in others.items())
    assert (done.private, done.size) == (False, target.stat().st_size)
    assert done.report.plan.preset == "flux1"


def test_metadata_go_along_and_say_what_was_done(model_file, target):
    convert(model_file, target, "int8")
    with safe_open(target, "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.title"] == "Small"
    assert metadata["graphquant.method"] == "int8" and metadata["graphquant.preset"] == "flux1"
    assert metadata["graphquant.source"] == "model.safetensors"
    assert set(json.loads(metadata["graphquant.layers"])) == set(QUANTIZED)


def test_a_sharded_model_gives_the_same_tensors(tmp_path, model_file, target, tensors):
    index = shards(tmp_path, tensors)
    convert(model_file, tmp_path / "whole.safetensors", "int4")
    convert(index, target, "int4")
    whole, found = load_file(tmp_path / "whole.safetensors"), load_file(target)
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_folder_means_the_one_model_in_it(tmp_path, target, tensors):
    (tmp_path / "transformer").mkdir()
    shards(tmp_path / "transformer", tensors)
    assert convert(tmp_path / "transformer", target, "int8").report.quantized_layers == 4


def test_patterns_and_presets_count_as_on_the_node(model_file, target):
    done = convert(model_file, target, "int8", preset=None, exclude="single_blocks")
    quantized = {layer.name for layer in done.report.plan.quantized}
    assert "img_in" in quantized and not any(n.startswith("single") for n in quantized)


def test_a_known_architecture_is_not_needed(tmp_path, target, tensors):
    renamed = {name.replace("double_blocks", "pairs"): t for name, t in tensors.items()}
    save_file(renamed, tmp_path / "other.safetensors")
    done = convert(tmp_path / "other.safetensors", target, "int8")
    assert done.report.plan.preset == "generic"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"method": "int9"}, UnknownNameError, "Unknown method 'int9'"),
        ({"file_format": "gguf"}, UnknownNameError, "Unknown file format 'gguf'"),
        ({"preset": "flux9"}, UnknownNameError, "Unknown preset 'flux9'"),
        ({"include": "blocks"}, PatternError, "matches none of 10 layers"),
        ({"exclude": "*"}, NothingToQuantizeError, "No layer is left"),
        ({"method": "none"}, StorageError, "Nothing of model.safetensors would be quantized"),
        ({"method": "fit", "fit": Fit(2**40)}, StorageError, "without quantizing. Ask for"),
        ({"method": "int4", "file_format": "stock"}, StorageError, "ComfyUI has no format for 4"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    model_file, target, options, error, words
):
    with pytest.raises(error, match=words):
        convert(model_file, target, **{"method": "int8", **options})
    assert not target.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "link.safetensors"])
def test_the_file_that_is_read_is_never_the_one_that_is_written(model_file, name):
    before = model_file.read_bytes()
    link = model_file.with_name("link.safetensors")
    link.symlink_to(model_file)
    with pytest.raises(StorageError, match="is the file that is read"):
        convert(model_file, model_file.with_name(name), "int8", overwrite=True)
    assert model_file.read_bytes() == before


def test_a_shard_is_never_the_one_that_is_written(tmp_path, tensors):
    index = shards(tmp_path, tensors)
    shard = tmp_path / "model-00002-of-00003.safetensors"
    with pytest.raises(StorageError, match="is the file that is read"):
        convert(index, shard, "int8", overwrite=True)


def test_what_was_there_stays_without_overwrite_and_after_an_error(model_file, target, tensors):
    target.parent.mkdir()
    target.write_bytes(b"mine")
    with pytest.raises(StorageError, match="exists"):
        convert(model_file, target, "int8")
    tensors["single_blocks.0.linear2.weight"][3, 5] = float("nan")
    save_file(tensors, model_file)
    with pytest.raises(NonFiniteWeightError, match=r"single_blocks\.0\.linear2\.weight holds NaN"):
        convert(model_file, target, "int8", overwrite=True)
    assert target.read_bytes() == b"mine"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_only_one_layer_is_held_at_a_time(model_file, target, monkeypatch):
    alive, held = [], []
    original = module.layer_quantizer

    def watched(read_weight, device, rounds):
        def reading(name):
            assert not any(ref() is not None for ref in alive)
            weight = read_weight(name)
            alive.append(weakref.ref(weight))
            held.append(name)
            return weight

        return original(reading, device, rounds)

    monkeypatch.setattr(module, "layer_quantizer", watched)
    convert(model_file, target, "int8")
    assert len(held) == 4


def test_a_calibration_rounds_as_one_in_python_does(model_file, target, tensors):
    generator = torch.Generator().manual_seed(3)
    inputs = {k: (torch.randn(160, k, generator=generator) + 1).bfloat16() for k in (128, 640)}
    rows = {layer: inputs[tensors[f"{layer}.weight"].shape[1]] for layer in QUANTIZED}
    with open_model(model_file) as opened:
        root = opened.layers_and_vectors()
    calibration = Calibration({}, rows=rows, model=fingerprint_of(root))
    done = convert(model_file, target, "int4", calibration=calibration, rounding="compensated")
    here = CalibratedRounding(calibration, "compensated", QUANTIZED)
    found = load_file(target)
    for layer in done.report.plan.quantized:
        stored = here(layer, tensors[f"{layer.name}.weight"])
        prefixed = f"graphquant.{layer.name}"
        assert torch.equal(found[f"{prefixed}.weight"], stored.qdata)
        shift = here.bias_shifts.get(layer.name)
        bias = tensors[f"{layer.name}.bias"]
        bias = bias if shift is None else shifted_bias(bias, shift)
        assert torch.equal(found[f"{prefixed}.bias"], bias)
    assert here.bias_shifts and done.report.rounding == here.outcomes
    tensors["txt_in.bias"] += 9
    save_file(tensors, model_file)
    with pytest.raises(CalibrationError, match="of another model"):
        convert(model_file, target, "int4", calibration=calibration, overwrite=True)
    with pytest.raises(CalibrationError, match="no calibration"):
        convert(model_file, target, "int4", rounding="compensated", overwrite=True)


PEAK = """
import resource, sys
from quant_core.conversion.convert import convert
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
convert(sys.argv[1], sys.argv[2], "int8")
print(peak() - before)
"""


def test_memory_peaks_at_a_layer_and_not_at_the_model(tmp_path):
    """A model of 256 MiB in layers of 8 MiB peaks below a quarter of it."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1024, 4096, generator=generator).bfloat16()
    tensors = {f"blocks.{i}.{n}.weight": weight.clone() for i in range(16) for n in ("a", "b")}
    save_file(tensors, tmp_path / "large.safetensors")
    command = [sys.executable, "-c", PEAK, str(tmp_path / "large.safetensors")]
    process = subprocess.run(
        [*command, str(tmp_path / "out.safetensors")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    print(process.stdout)
    assert int(process.stdout) < 64
