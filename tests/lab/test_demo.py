"""The demo draws five methods unless it is asked for all, and every size is in MiB."""

import torch

from graphquant.quant_core.methods import METHODS
from lab import demo
from lab.demo import HEADER, SHOWN, Drawing, shown
from lab.miniature import workflow


def test_five_methods_are_drawn_by_default_in_their_order():
    assert len(SHOWN) == 5 and set(SHOWN) <= set(METHODS)
    assert shown(["int4", "nf4", *SHOWN]) == list(SHOWN)
    assert shown(["int8", "int4"]) == ["int8", "int4"]


def test_a_row_tells_mebibytes(monkeypatch):
    monkeypatch.setattr(demo, "_drawn", lambda *rest: ["1.00", "0.0100", "18", "0.50"])
    report = {"quantized_layers": 40, "skipped_layers": 2, "seconds": 0.5, "kernel": "dequantize"}
    report |= {"model_bytes_before": 8 * 2**20, "model_bytes_after": 5 * 2**19, "runs_as": "int8"}
    entry = {"outputs": {workflow.QUANTIZE: {"graphquant": [report]}}}
    drawing = Drawing(entry, torch.zeros(1), torch.zeros(1))
    row = demo._row("int8", drawing, drawing).split()
    assert row[:5] == ["int8", "40", "2", "8.0", "2.5"]
    assert HEADER[3:5] == ("MiB before", "MiB after")
