"""The matmul benchmark: what it measures, in which order, and that it ends."""

import pytest
import torch
from torch import nn

from graphquant.quant_core import quantize_component
from graphquant.quant_core.machine.benchmark_gemm import (
    BASELINE,
    GemmTiming,
    fastest,
    linear_shapes,
    measure_gemms,
    total_seconds,
    typical_rows,
    typical_shapes,
)

CPU = torch.device("cpu")


def model():
    layers = {"up": nn.Linear(64, 128), "down": nn.Linear(128, 64), "again": nn.Linear(64, 128)}
    return nn.ModuleDict(layers).bfloat16()


def timing(rows=4, shape=(8, 8), layers=1, **seconds):
    return GemmTiming(rows, shape, layers, seconds)


def test_every_method_is_timed_on_every_shape_the_costliest_first():
    shapes = {(64, 64): 1, (128, 256): 2, (256, 64): 1}
    timings = measure_gemms(shapes, ("int8", "int8-dynamic"), CPU, rows=32)
    assert [t.shape for t in timings] == [(128, 256), (256, 64), (64, 64)]
    assert [t.layers for t in timings] == [2, 1, 1]
    for measured in timings:
        assert list(measured.seconds) == [BASELINE, "int8", "int8-dynamic"]
        assert min(measured.seconds.values()) > 0


def test_after_its_time_no_further_shape_begins():
    shapes = {(64 * size, 64): 1 for size in range(1, 9)}
    assert len(measure_gemms(shapes, ("int8",), CPU, rows=32, seconds=0)) == 1


def test_it_can_be_cancelled_between_shapes():
    def cancel():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_gemms({(64, 64): 1}, ("int8",), CPU, rows=32, on_shape=cancel)


def test_a_shape_that_fp8_matmuls_do_not_take_is_measured_as_it_would_run():
    (measured,) = measure_gemms({(24, 40): 1}, ("fp8-dynamic", "int8"), CPU, rows=32)
    assert set(measured.seconds) == {BASELINE, "fp8-dynamic", "int8"}


def test_shapes_are_counted_and_the_same_for_a_quantized_model():
    plain = linear_shapes(model())
    assert plain == {(128, 64): 2, (64, 128): 1}
    quantized, _ = quantize_component(model(), "int8")
    assert linear_shapes(quantized) == plain


def test_typical_shapes_are_small_on_a_cpu():
    assert max(typical_shapes(CPU)) == (3072, 768)
    assert max(typical_shapes(torch.device("cuda"))) == (12288, 3072)
    assert (typical_rows(CPU), typical_rows(torch.device("cuda"))) == (256, 4096)


def test_speed_is_against_bf16_and_totals_count_layers():
    timings = (
        timing(layers=3, bf16=2.0, int8=1.0),
        timing(layers=1, bf16=1.0, int8=4.0),
    )
    assert timings[0].speed("int8") == 2.0
    assert timings[0].to_dict()["speed"] == {"bf16": 1.0, "int8": 2.0}
    assert (total_seconds(timings, "bf16"), total_seconds(timings, "int8")) == (7.0, 7.0)


def test_the_fastest_is_by_all_layers_and_the_first_where_nothing_was_measured():
    timings = (timing(layers=2, bf16=1.0, int8=2.0, **{"fp8-dynamic": 3.0}),)
    assert fastest(timings, ("fp8-dynamic", "int8")) == "int8"
    assert fastest((), ("fp8-dynamic", "int8")) == "fp8-dynamic"
    assert fastest(timings, ("int4", "int8")) == "int4"
