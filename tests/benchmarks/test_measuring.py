"""What every benchmark stands on."""

import json

import pytest
import torch

from benchmarks import measuring
from benchmarks.measuring import hardware, peak_bytes, table, write

CPU = torch.device("cpu")


def test_the_machine_is_named_with_every_version_that_matters():
    about = hardware(CPU)
    assert about["torch"] == torch.__version__ and about["cpu"]
    assert {"triton", "torchao", "comfy-kitchen", "threads"} <= set(about)


def test_a_table_has_three_digits_and_a_dash_where_there_is_nothing():
    assert table(("a", "b"), [(1.23456, None), ("x", 12)]) == [
        "| a | b |",
        "|---|---|",
        "| 1.23 | - |",
        "| x | 12 |",
    ]


def test_a_gpus_results_lie_beside_the_cpus(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measuring, "RESULTS", tmp_path)
    write("step", {"rows": 1}, "text\n", CPU)
    write("step", {"rows": 2}, "other\n", torch.device("cuda"))
    assert json.loads((tmp_path / "step.json").read_text()) == {"rows": 1}
    assert (tmp_path / "step_cuda.md").read_text() == "other\n"
    assert peak_bytes(pytest.fail, CPU) is None
