"""A local Ray of two workers gives what one process gives, also when a worker is killed."""

import copy
import os
import signal
import subprocess
import sys

import psutil
import pytest
import torch
from safetensors.torch import save_file

from graphquant.quant_core import plan_component, quantize_component
from graphquant.quant_core.applying import ray_quantizer as module
from graphquant.quant_core.applying.quantize_plan import quantize_plan
from graphquant.quant_core.applying.ray_quantizer import RayQuantizer, ray_cluster
from graphquant.quant_core.calibration import Calibration, fingerprint_of
from graphquant.quant_core.conversion.convert import convert
from graphquant.quant_core.errors import ClusterError, NonFiniteWeightError
from graphquant.quant_core.rounding import CalibratedRounding
from lab.pack import ROOT

pytest.importorskip("ray", reason="Ray is not installed")


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster(workers=2) as ray:
        yield ray


def workers():
    """The processes that run tasks or wait for them."""
    found = psutil.Process().children(recursive=True)
    return [p for p in found if p.name() in ("ray::quantize", "ray::IDLE")]


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert found[name].format == weight.format
        assert (found[name].shape, found[name].dtype) == (weight.shape, weight.dtype)
        assert found[name].tensors.keys() == weight.tensors.keys()
        for part, tensor in weight.tensors.items():
            bits = (t.reshape(-1).view(torch.uint8) for t in (found[name].tensors[part], tensor))
            assert torch.equal(*bits), (name, part)


def spread(cluster, plan, read, rounding=None):
    quantizer = RayQuantizer(cluster, plan.quantized, read, rounding)
    return quantize_plan(plan, read, quantizer=quantizer)


@pytest.fixture
def read(transformer):
    return lambda name: transformer.get_submodule(name).weight.detach()


@pytest.mark.parametrize("method", ["int8", "int8-convrot", "fp8-weight-only", "int4", "nvfp4"])
def test_every_bit_is_that_of_one_process(cluster, transformer, read, method):
    plan = plan_component(transformer, method)
    assert_equal(spread(cluster, plan, read), quantize_plan(plan, read))


def test_the_layers_of_a_worker_that_is_killed_are_done_again(cluster, normal):
    model = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024, bias=False) for _ in range(24)))
    for number, layer in enumerate(model.requires_grad_(False)):
        layer.weight.copy_(normal(1024, 1024, seed=number))
    plan = plan_component(model, "int4")

    def read(name):
        return model.get_submodule(name).weight.detach()

    quantizer = RayQuantizer(cluster, plan.quantized, read)
    killed = []

    def kill_one(layer):
        if layer is plan.quantized[5]:
            (busy, *_) = sorted(workers(), key=lambda p: p.name() != "ray::quantize")
            os.kill(busy.pid, signal.SIGKILL)
            killed.append(busy.pid)

    found = quantize_plan(plan, read, quantizer=quantizer, on_layer=kill_one)
    assert len(killed) == 1
    assert_equal(found, quantize_plan(plan, read))


def test_rounding_by_calibration_is_that_of_one_process(cluster, transformer, read, normal):
    plan = plan_component(transformer, "int4", exclude="blocks.1")
    inputs = {layer.shape[1]: normal(160, layer.shape[1], std=1.0) for layer in plan.quantized}
    rows = {layer.name: inputs[layer.shape[1]].bfloat16() for layer in plan.quantized}
    del rows["img_in"]
    here, there = (
        CalibratedRounding(Calibration({}, rows=rows), biased=("blocks.0.attn",)) for _ in range(2)
    )
    expected = quantize_plan(plan, read, round_layer=here)
    assert_equal(spread(cluster, plan, read, there), expected)
    assert there.outcomes == here.outcomes and "blocks.0.attn" in here.outcomes
    assert there.bias_shifts.keys() == here.bias_shifts.keys()
    for name, shift in here.bias_shifts.items():
        assert torch.equal(there.bias_shifts[name], shift)


def test_a_component_is_what_one_process_makes(cluster, transformer, normal):
    calibration = Calibration(
        {},
        rows={
            n: normal(160, m.in_features, std=1.0).bfloat16()
            for n, m in transformer.named_modules()
            if isinstance(m, torch.nn.Linear)
        },
        model=fingerprint_of(transformer),
    )
    copies = [copy.deepcopy(transformer) for _ in range(2)]
    options = {"calibration": calibration, "rounding": "compensated"}
    (_, here), (_, there) = (
        quantize_component(model, "int4", ray=ray, **options)
        for model, ray in zip(copies, (None, "local"), strict=True)
    )
    assert [la["rounding"] for la in there["layers"]] == [la["rounding"] for la in here["layers"]]
    one, many = (dict(model.named_parameters()) for model in copies)
    quantized = {n for n, p in one.items() if hasattr(p, "quantized_weight")}
    assert len(quantized) > 5
    assert_equal(*({n: p[n].quantized_weight() for n in quantized} for p in (many, one)))
    assert all(torch.equal(many[n], p) for n, p in one.items() if n not in quantized)


def lacks_a_library(order, weight):
    import numpy_of_the_worker  # noqa: F401


def ends_its_worker(order, weight):
    import os

    os._exit(1)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (lacks_a_library, r"A worker cannot quantize 0 \(ModuleNotFoundError: No module named 'nu"),
        (ends_its_worker, r"The cluster lost 0 2 times \(WorkerCrashedError\)\. Check the memory"),
    ],
)
def test_a_layer_that_no_worker_can_do_is_named_with_the_reason(cluster, monkeypatch, task, words):
    task.__module__ = "__main__"  # sent by value, as the real one is
    monkeypatch.setattr(module, "_task", lambda threads, on_gpu: task)
    monkeypatch.setattr(module, "_RETRIES", 1)
    plan = plan_component(torch.nn.Sequential(torch.nn.Linear(64, 64)), "int8")
    quantizer = RayQuantizer(cluster, plan.quantized, lambda name: torch.ones(64, 64))
    with pytest.raises(ClusterError, match=words):
        quantizer(plan.quantized[0])


def test_a_weight_that_is_not_finite_is_named(cluster, transformer, read):
    plan = plan_component(transformer, "int8")
    with torch.no_grad():
        transformer.blocks[1].attn.weight[0, 0] = float("inf")
    with pytest.raises(NonFiniteWeightError, match=r"blocks\.1\.attn\.weight holds NaN"):
        spread(cluster, plan, read)


def test_a_converted_file_is_that_of_one_process(cluster, tmp_path, normal):
    tensors = {f"blocks.{i}.{n}.weight": normal(64, 64, seed=i) for i in range(3) for n in "ab"}
    save_file(tensors, tmp_path / "model.safetensors")
    for name, ray in (("one", None), ("many", "local")):
        convert(tmp_path / "model.safetensors", tmp_path / f"{name}.safetensors", "nvfp4", ray=ray)
    one, many = (tmp_path / f"{name}.safetensors" for name in ("one", "many"))
    assert many.read_bytes() == one.read_bytes()


def test_no_cluster_is_said_in_one_line(tmp_path, normal):
    tensors = {f"blocks.{i}.{n}.weight": normal(64, 64) for i in range(2) for n in "ab"}
    save_file(tensors, tmp_path / "model.safetensors")
    command = [
        sys.executable,
        "-m",
        "quant_core.cli",
        "convert",
        str(tmp_path / "model.safetensors"),
    ]
    process = subprocess.run(
        [*command, str(tmp_path / "out.safetensors"), "--method", "int8", "--ray", "127.0.0.1:1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    print(process.stderr)
    assert process.returncode == 1
    assert "graphquant: No Ray cluster answers at 127.0.0.1:1" in process.stderr
    assert not (tmp_path / "out.safetensors").exists()
