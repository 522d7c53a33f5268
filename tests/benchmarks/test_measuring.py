"""What every benchmark stands on."""

import json

import pytest
import torch

from benchmarks import measuring
from benchmarks.measuring import hardware, in_turn, peak_bytes, table, write
from lab.clock import Clock

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """The module's clock."""
    clock = Clock()
    monkeypatch.setattr(measuring, "time", clock)
    return clock


def test_the_median_of_each_case_is_of_samples_after_the_warm_up(clock):
    waits = iter([9.0, 9.0, 0.3, 0.1, 0.2])
    cases = {"a": lambda: clock.pass_by(next(waits)), "b": lambda: clock.pass_by(0.05)}
    seconds = in_turn(cases, 3)
    assert seconds == pytest.approx({"a": 0.2, "b": 0.05})
    assert list(waits) == []


def test_a_short_case_is_repeated_until_its_sample_is_long_enough(clock):
    calls = []
    seconds = in_turn({"a": lambda: (calls.append(1), clock.pass_by(1e-4))}, 2, CPU, shortest=0.003)
    assert len(calls) == 2 + 2 * 30
    assert seconds == pytest.approx({"a": 1e-4})


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
