"""The one go on a GPU: parts end by themselves or in time, and what was measured is kept."""

import json
import tarfile

import pytest

from benchmarks import on_a_gpu
from benchmarks.on_a_gpu import PARTS, Part, run
from lab.pack import ROOT


def part(name, code, limit=60):
    """A module of the standard library that runs ``code``."""
    return Part(name, limit, ("timeit", "-n1", "-r1", code))


@pytest.fixture
def results(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    monkeypatch.setattr(on_a_gpu, "RESULTS", folder)
    monkeypatch.setattr("benchmarks.measuring.RESULTS", folder)
    return folder


def test_what_fails_or_hangs_takes_nothing_from_the_others(tmp_path, results):
    sleep = "import time; time.sleep(60)"
    parts = [
        part("good", "print(1 + 1)"),
        part("bad", "raise ValueError('so it is')"),
        part("endless", sleep, limit=1),
        part("last", "print('here')"),
    ]
    archive = tmp_path / "all.tgz"
    outcomes = run(parts, 120, archive)
    assert [outcome.end for outcome in outcomes] == ["done", "failed", "cut short", "done"]
    (written,) = results.glob("*.md")
    text = written.read_text()
    assert "| endless | cut short |" in text and "ValueError: so it is" in text
    assert "print('here')" not in text
    with tarfile.open(archive) as tar:
        assert {"logs/good.log", f"results/{written.name}"} <= set(tar.getnames())


def test_where_time_is_up_the_rest_is_named_as_not_run(results):
    outcomes = run([part("one", "pass"), part("two", "pass")], 0, None)
    assert [outcome.end for outcome in outcomes] == ["no time left"] * 2


def test_bars_that_the_step_missed_stand_in_the_summary(results):
    results.mkdir()
    step = {"seconds": {"eager": {"int8": 2.0}}, "bf16 seconds": {"eager": {"int8": 1.0}}}
    (results / "step_cuda.json").write_text(json.dumps({**step, "peak bytes": {"bf16": 1}}))
    text = on_a_gpu.markdown({"hardware": {}, "parts": []})
    assert "Bars of a step: int8 eager: 0.50, bar 0.92." in text


def test_the_parts_name_files_and_options_that_there_are():
    """In the order of what matters most; the first four fit a quarter of an hour."""
    assert [part.name for part in PARTS][:3] == ["kernels", "layer", "step"]
    assert sum(part.limit for part in PARTS[:4]) < 15 * 60
    for part in PARTS:
        for argument in part.arguments:
            if argument.endswith(".py"):
                assert (ROOT / argument).is_file()
        module = part.arguments[0]
        if module.startswith("benchmarks."):
            text = (ROOT / f"{module.replace('.', '/')}.py").read_text()
            options = [each for each in part.arguments if each.startswith("--")]
            assert all(each.replace("--no-", "--") in text for each in options)
