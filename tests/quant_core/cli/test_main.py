"""The command line as a user meets it: results, exit codes, and one line where it refuses."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from graphquant.quant_core.cli.__main__ import main
from lab.pack import ROOT


@pytest.fixture
def model(tmp_path):
    """A file of a model that no preset knows, its blocks large enough to take a moment."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return (torch.randn(*shape, generator=generator) * 0.05).bfloat16()

    tensors = {f"blocks.{i}.{n}.weight": normal(256, 256) for i in range(4) for n in ("a", "b")}
    tensors |= {"head.weight": normal(64, 256), "head.bias": normal(64)}
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def run(capsys):
    """``run(*arguments)`` -> exit code, stdout, stderr."""

    def main_with(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return main_with


def refused(outcome, *words):
    """One line on stderr that has all of ``words``."""
    code, out, err = outcome
    assert (code, out) == (1, "")
    assert err.startswith("graphquant: ") and err.count("\n") == 1
    assert [word for word in words if word not in err] == []


def test_convert_then_inspect_then_verify(model, tmp_path, run):
    out = tmp_path / "out.safetensors"
    code, told, _ = run("convert", model, out, "--method", "int8")
    assert code == 0 and "8 of 9 layers quantized" in told and "stock" in told
    code, told, _ = run("inspect", out)
    assert code == 0 and "8       int8 per-row" in told and "int8_tensorwise" in told
    code, told, _ = run("verify", out, model)
    assert code == 0 and "out.safetensors is whole" in told and "blocks.3.b" in told


def test_results_are_json_on_request(model, tmp_path, run):
    out = tmp_path / "out.safetensors"
    values = json.loads(run("convert", model, out, "--method", "nf4", "--json")[1])
    assert (values["format"], values["bytes"]) == ("graphquant", out.stat().st_size)
    values = json.loads(run("inspect", out, "--json")[1])
    assert sum(layer["format"].startswith("nf4") for layer in values["layers"]) == 8
    assert values["bytes"] == values["other_bytes"] + sum(la["nbytes"] for la in values["layers"])
    values = json.loads(run("verify", out, model, "--json")[1])
    assert values["faults"] == [] and all(0.07 < la["error"] < 0.1 for la in values["layers"])
    code, told, _ = run("inspect", tmp_path / "none.safetensors", "--json")
    assert code == 1 and json.loads(told)["code"] == 1


def test_quiet_says_nothing_but_what_is_wrong(model, tmp_path, run):
    out = tmp_path / "out.safetensors"
    assert run("convert", model, out, "--method", "int8", "--quiet") == (0, "", "")
    refused(run("convert", model, out, "--method", "int8", "--quiet"), "exists")


def test_estimates_are_the_sizes_of_the_files(model, tmp_path, run):
    values = json.loads(run("estimate", model, "--json")[1])["methods"]
    sizes = {each["method"]: each["nbytes"] for each in values}
    assert len(sizes) > 15
    for method in ("int8", "int4", "nvfp4"):
        out = tmp_path / f"{method}.safetensors"
        run("convert", model, out, "--method", method)
        markers = sum(t.nbytes for n, t in load_file(out).items() if "quant" in n.split(".")[-1])
        assert sum(t.nbytes for t in load_file(out).values()) - markers == sizes[method]


def test_a_configuration_says_the_method(model, tmp_path, run):
    config = tmp_path / "config.json"
    config.write_text(
        '{"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}'
    )
    out = tmp_path / "out.safetensors"
    assert run("convert", model, out, "--config", config)[0] == 0
    refused(run("convert", model, out, "--config", config, "--method", "int8"), "--method and")
    refused(run("convert", model, out), "No method is named", "--method int8")
    config.write_bytes(b"\xff\xfe\x00")
    refused(run("convert", model, out, "--config", config), "is not UTF-8")
    refused(run("convert", model, out, "--config", tmp_path / "no"), "No such file", "no. Check")


def pickle(path):
    torch.save({"weight": torch.zeros(4)}, path)


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("<!DOCTYPE html><html>You need to log in</html>")


def old_pickle(path):
    torch.save({"weight": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)


def gguf(path):
    path.write_bytes(b"GGUF" + bytes(64))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (pickle, "is a pickle, which can run code"),
        (old_pickle, "is a pickle, which can run code"),
        (empty, "too short for a safetensors file"),
        (text, "it is not a safetensors file"),
        (gguf, "is a GGUF file, which is quantized already"),
    ],
)
@pytest.mark.parametrize("command", ["convert", "inspect", "estimate", "verify"])
def test_what_is_not_a_model_file_is_refused_in_one_line(tmp_path, run, command, spoil, words):
    path = tmp_path / "model.safetensors"
    spoil(path)
    out = tmp_path / "out.safetensors"
    further = [out, "--method", "int8"] if command == "convert" else []
    refused(run(command, path, *further), "model.safetensors", words)
    assert not out.exists()


@pytest.mark.parametrize("kept", [4, 100, 0.5, -1])
def test_a_truncated_file_is_refused(model, tmp_path, run, kept):
    data = model.read_bytes()
    model.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    out = tmp_path / "out.safetensors"
    refused(run("convert", model, out, "--method", "int8"), "Download or save it again")
    assert not out.exists()


def test_two_models_in_one_file_are_refused(tmp_path, run):
    wan = {"head.modulation": torch.zeros(1, 2, 8), "blocks.0.ffn.0.weight": torch.rand(64, 64)}
    flux = {
        "double_blocks.0.img_attn.qkv.weight": torch.rand(64, 64),
        "img_in.weight": torch.rand(64, 64),
    }
    save_file(wan | flux, tmp_path / "both.safetensors")
    found = run(
        "convert", tmp_path / "both.safetensors", tmp_path / "o.safetensors", "--method", "int8"
    )
    refused(found, "both.safetensors", "two models, flux1 and wan", "Split it")


def test_one_shard_of_several_is_refused_and_its_index_named(model, run, tmp_path):
    shard = model.rename(tmp_path / "model-00001-of-00002.safetensors")
    refused(run("inspect", shard), "one of 2 shards", "model.safetensors.index.json")


def test_places_that_cannot_be_written_are_refused(model, tmp_path, run):
    (tmp_path / "a_file").write_text("")
    for place in ("a_file/out.safetensors", f"{'x' * 300}.safetensors"):
        outcome = run("convert", model, tmp_path / place, "--method", "int8")
        assert outcome[0] == 1 and outcome[2].count("\n") == 1
    refused(run("convert", model, "/proc/out.safetensors", "--method", "int8"), "/proc")
    refused(run("convert", model, tmp_path / "out.pt", "--method", "int8"), ".safetensors")


def test_a_disk_that_fills_up_leaves_what_was_there(model, tmp_path, run, monkeypatch):
    from graphquant.quant_core.storage import writer

    out = tmp_path / "out.safetensors"
    out.write_bytes(b"mine")

    def full(*_):
        raise OSError(28, "No space left on device", str(out))

    monkeypatch.setattr(writer.os, "fsync", full)
    outcome = run("convert", model, out, "--method", "int8", "--overwrite")
    refused(outcome, "No space left on device", "what was there before stays")
    assert out.read_bytes() == b"mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "out.safetensors"]


def test_faults_that_verify_finds_are_exit_code_3(model, tmp_path, run):
    out = tmp_path / "out.safetensors"
    run("convert", model, out, "--method", "int8")
    tensors = load_file(model)
    tensors["head.bias"][0] += 1
    tensors["blocks.0.a.weight"] = tensors["blocks.0.a.weight"].flip(0).contiguous()
    del tensors["head.weight"]
    tensors["more.bias"] = torch.zeros(3)
    save_file(tensors, tmp_path / "other.safetensors")
    code, told, _ = run("verify", out, tmp_path / "other.safetensors")
    assert code == 3
    for words in (
        "more.bias of the reference is missing",
        "head.bias is neither",
        "head.weight is not in the reference",
        "blocks.0.a differs from the reference by 1.",
    ):
        assert words in told


def test_wrong_usage_is_exit_code_2(capsys):
    with pytest.raises(SystemExit) as error:
        main(["convert", "a", "b", "--granularity", "per-cent"])
    assert error.value.code == 2


def started(tmp_path):
    """A conversion in a process of its own that has begun to write, and its target."""
    weight = torch.rand(2048, 2048).bfloat16()
    tensors = {f"blocks.{i}.{n}.weight": weight.clone() for i in range(12) for n in ("a", "b")}
    save_file(tensors, tmp_path / "large.safetensors")
    out = tmp_path / "out" / "out.safetensors"
    command = [sys.executable, "-m", "quant_core.cli", "convert", tmp_path / "large.safetensors"]
    process = subprocess.Popen(
        [*map(str, command), str(out), "--method", "int4"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore it, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (out.parent.is_dir() and list(out.parent.iterdir())) and process.poll() is None:
        time.sleep(0.02)
    return process, out


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "terminated"]
)
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_a_conversion_that_is_stopped_leaves_nothing(tmp_path, sent, code):
    process, out = started(tmp_path)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.count("\n") == 1 and "nothing was written" in err
    assert list(out.parent.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_a_killed_conversion_that_is_run_again_makes_the_file_it_would_have_made(tmp_path, run):
    process, out = started(tmp_path)
    process.kill()
    process.communicate(timeout=60)
    (left,) = out.parent.iterdir()
    assert left.name.startswith(".out.safetensors.") and left.suffix == ".part"
    assert run("convert", tmp_path / "large.safetensors", out, "--method", "int4")[0] == 0
    assert list(out.parent.iterdir()) == [out]
    other = tmp_path / "other.safetensors"
    assert run("convert", tmp_path / "large.safetensors", other, "--method", "int4")[0] == 0
    assert out.read_bytes() == other.read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_what_a_running_conversion_writes_is_left_alone_by_another(model, tmp_path, run):
    process, out = started(tmp_path)
    assert run("convert", model, out, "--method", "int8")[0] == 0
    first = out.read_bytes()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "exists" in err
    assert out.read_bytes() == first and list(out.parent.iterdir()) == [out]
