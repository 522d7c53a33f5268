"""The speed benchmarks: their shapes, their ratios and one tiny run of each."""

import pytest
import torch

from benchmarks import flux_model, layer, lora, quantize, step
from benchmarks.layer_cases import layers
from benchmarks.shapes import GEMMS, SMALL_M
from graphquant.quant_core.methods import MEASURED, METHODS

CPU = torch.device("cpu")
ABOUT = {"hardware": {"cpu": "a CPU"}, "repeats": 3}


def test_six_models_have_their_layers_at_real_token_counts():
    models = {gemm.model: gemm.tokens for gemm in GEMMS}
    assert models["FLUX.1"] == 4608 and models["Wan 2.2 14B"] == 32760
    assert len(models) == 6 and SMALL_M.tokens == 1
    assert all(size % 16 == 0 for gemm in GEMMS for size in (gemm.inputs, gemm.outputs))


def test_a_cpu_takes_the_largest_layer_of_each_model_made_smaller():
    chosen = layer.gemms(CPU, None)
    assert len(chosen) == 6 and max(gemm.flops for gemm in chosen) < 3e11
    assert [gemm.model for gemm in layer.gemms(CPU, ["Z-Image"])] == ["Z-Image"]
    assert layer.gemms(torch.device("cuda"), ["Z-Image"])[0].inputs == 3840


def test_the_layer_table_says_ratios_and_what_did_not_run():
    seconds = {"bf16": 0.02, "int8": 0.016}
    row = {"model": "FLUX.1", "layer": "qkv", "shape": [64, 128, 256]}
    row |= {"seconds": {"eager": seconds}, "not run": {"torchao fp8 dynamic": "needs CUDA"}}
    lines = layer.markdown({**ABOUT, "rows": [row]}).splitlines()
    assert "| FLUX.1 qkv | 64 x 128 x 256 | 20 | 1.25 |" in lines
    assert lines[-1] == "Not run here: torchao fp8 dynamic: needs CUDA"


def step_results(plain, **seconds):
    names = ["bf16", *seconds["eager"]]
    return {
        **ABOUT,
        "hidden": 512,
        "blocks": [1, 2],
        "seconds": seconds,
        "bf16 seconds": plain,
        "model bytes": dict.fromkeys(names, 2**20),
        "peak bytes": {name: 2**30 // (1 + i) for i, name in enumerate(names)},
    }


def test_speeds_are_beside_bf16_in_turn_with_each_method_and_memory_beside_its_peak():
    plain = {"eager": {"int8": 2.0, "int4": 2.2}, "compiled": {"int8": 1.0}}
    seconds = {"eager": {"int8": 1.6, "int4": 2.0}, "compiled": {"int8": 0.5}}
    results = step_results(plain, **seconds)
    assert step.speeds(results, "eager") == pytest.approx({"int8": 1.25, "int4": 1.1})
    assert step.speeds(results, "compiled")["int8"] == pytest.approx(2)
    assert step.memory_shares(results)["int8"] == 0.5
    lines = step.markdown(results).splitlines()
    assert "| bf16 | 2.1 | 1 | 1 | 1 | 1 | 1 |" in lines
    assert "| int8 | 1.6 | 1.25 | 0.5 | 2 | 1 | 0.5 |" in lines
    assert "| int4 | 2 | 1.1 | - | - | 1 | 0.333 |" in lines


def test_bars_that_are_missed_are_named_and_what_was_not_measured_is_not():
    results = step_results({"eager": {"int8": 1.0}}, eager={"int8": 1.25})
    assert step.missed_bars(results) == ["int8 eager: 0.80, bar 0.92"]
    results["peak bytes"] = {"bf16": 100, "int8": 61}
    assert step.missed_bars(results)[1:] == ["int8 memory: 0.61, bar 0.60"]


def test_a_loras_overhead_is_a_share_of_the_step_without_it():
    rows = {"int8": {"none": 2.0, "16": 2.05, "128": 2.2}}
    results = {**ABOUT, "hidden": 512, "blocks": [1, 2], "ranks": [16, 128], "seconds": rows}
    assert lora.overheads(results, 16)["int8"] == pytest.approx(0.025)
    assert "| int8 | 2 | +2.5% | +10.0% |" in lora.markdown(results).splitlines()


def test_quantizing_is_measured_beside_reading_and_writing_the_bytes():
    rows = quantize.measure(256, 2, CPU, 1)
    assert set(rows) == set(quantize.METHODS)
    for row in rows.values():
        assert row["gigabytes a second"] == pytest.approx(2 * 2 * 256 * 1024 / row["seconds"] / 1e9)
        assert row["read + write seconds"] > 0 and row["peak GPU bytes"] is None
    results = {**ABOUT, "width": 256, "layers": 2, "rows": rows}
    assert quantize.markdown(results).count("\n| ") == 4


@pytest.fixture
def smallest(monkeypatch):
    """The smallest FLUX that there can be, everywhere."""
    inputs = flux_model.TinyModel("", (16, 8, 8), 64, 8, 32)
    size = flux_model.Size(128, 1, 1, inputs, steps=1)
    for module in (step, lora):
        monkeypatch.setattr(module, "size_for", lambda device: size)


def test_one_layer_is_computed_in_every_way_that_runs_here(comfy):
    row = layer.measure(GEMMS[0].smaller(64, 24), CPU, 1, compiled=False)
    ours = {"fp8-weight-only", "int8", "int8-dynamic", "int4", "layerwise"}
    theirs = {"torchao fp8", "torchao int8", "stock fp8 scaled", "stock int8"}
    assert {"bf16"} | ours | theirs <= set(row["seconds"]["eager"])
    assert "fp8-dynamic" not in row["seconds"]["eager"]


def test_every_format_has_its_speed_in_a_table_without_other_libraries(comfy):
    row = layer.measure(GEMMS[0].smaller(64, 24), CPU, 1, compiled=False, every_format=True)
    stored = set(METHODS) - {"none", *MEASURED}
    assert set(row["seconds"]["eager"]) | set(row["not run"]) == {"bf16", *stored}
    assert {"nf4", "int3", "mxfp8", "fp8-block", "llm.int8"} <= set(row["seconds"]["eager"])


def test_a_layer_copied_for_casting_leaves_the_plain_one_without_hooks(comfy):
    made = dict(layers(128, 128, CPU))
    assert not made["bf16"]._forward_hooks and not made["bf16"]._forward_pre_hooks


def test_a_step_of_every_method_is_timed(comfy, smallest):
    seen = []
    results = step.measure(("int8", "layerwise"), CPU, 1, (), lambda found: seen.append(len(found)))
    assert set(results["seconds"]["eager"]) == {"int8", "layerwise"} and len(seen) == 2
    assert results["model bytes"]["int8"] < 0.7 * results["model bytes"]["bf16"]
    assert results["peak bytes"]["int8"] is None


def test_a_lora_reaches_every_quantized_layer_and_is_timed(comfy, smallest):
    seconds = lora.measure(("int8",), (4,), CPU, 1)["seconds"]["int8"]
    assert set(seconds) == {"none", "4"} and min(seconds.values()) > 0
