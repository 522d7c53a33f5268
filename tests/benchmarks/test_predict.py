"""Predicted times follow from what is counted, and the counts are those of FLUX.1."""

from dataclasses import replace

import pytest

from benchmarks import predict
from benchmarks.flux_model import FULL
from benchmarks.predict import CARDS, PLAIN, lora_share, missed_targets, speed, step_operations
from graphquant.quant_core.kernels.triton.start import has_triton
from lab.fake_gpu import HOPPER
from lab.gpu_trace import Operation

pytestmark = [
    pytest.mark.usefixtures("comfy"),
    pytest.mark.skipif(not has_triton(), reason="Triton is not installed"),
]
SMALLER = replace(FULL, double=2, single=3)


def flops(operations, *kinds):
    return sum(op.flops for op in operations if op.kind in kinds)


def test_what_is_counted_is_flux_1():
    """59.5 TFLOP of Linear layers and 14.9 of attention, whatever multiplies them."""
    plain = step_operations(HOPPER, PLAIN)
    assert flops(plain, "bf16") == pytest.approx(59.5e12, rel=0.01)
    assert flops(plain, "attention") == pytest.approx(14.9e12, rel=0.01)
    fp8 = step_operations(HOPPER, "fp8-dynamic", SMALLER)
    share = flops(fp8, "fp8") / flops(step_operations(HOPPER, PLAIN, SMALLER), "bf16")
    assert share > 0.97
    with_lora = step_operations(HOPPER, "fp8-dynamic", SMALLER, rank=16)
    assert len(with_lora) - len(fp8) <= 2 * 5 + 8  # the products of few rows, and no other


def test_an_operation_takes_as_long_as_the_slower_of_bytes_and_flops():
    card = CARDS["H100"]
    bytes_ = Operation("mul", 0, 0, int(3.35e9))
    work = Operation("mm", 0, 0, 8, int(989e9 * 0.56))
    assert card.seconds([bytes_]) == pytest.approx(1e-3, rel=0.01)
    assert card.seconds([work]) == pytest.approx(1e-3, rel=0.01)
    assert card.seconds([Operation("add", 0, 0, 8)] * 1000) == pytest.approx(6e-3)  # the CPU's time


def test_a_table_says_what_it_is_and_which_targets_are_missed(monkeypatch):
    monkeypatch.setattr(predict, "measured", lambda: {"fp8-dynamic": 1.33})
    found = {PLAIN: {"seconds": 0.15}}
    found |= {"fp8-dynamic": {"seconds": 0.12, "with a LoRA": 0.126, "launches": 1}}
    results = {"cards": {"H100": found}}
    assert speed(found, "fp8-dynamic") == pytest.approx(1.25)
    assert lora_share(found, "fp8-dynamic") == pytest.approx(0.05)
    text = predict.markdown(results)
    assert text.startswith("PREDICTED, NOT MEASURED") and "1.33" in text
    assert missed_targets(results) == [
        "fp8-dynamic on H100: 1.25, target 1.40",
        "LoRA on fp8-dynamic, H100: 5.0%, target 3%",
    ]
