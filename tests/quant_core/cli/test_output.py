"""Results go to stdout, words about them to stderr, and progress to a terminal alone."""

import json

import pytest

from graphquant.quant_core.cli import output
from graphquant.quant_core.cli.output import Output
from lab.clock import Clock


@pytest.fixture
def clock(monkeypatch):
    """Time goes by when the test says so, on a terminal of 80 columns."""
    clock = Clock()
    monkeypatch.setattr(output, "time", clock)
    monkeypatch.setenv("COLUMNS", "80")
    return clock


def on_a_terminal(monkeypatch, **options):
    """An Output whose stderr is a terminal, though pytest reads it."""
    with monkeypatch.context() as patch:
        patch.setattr(output.sys.stderr, "isatty", lambda: True)
        return Output(**options)


def test_a_result_is_words_or_one_json_object_or_nothing(capsys):
    for shown, expected in ((Output(), "8 layers\n"), (Output(quiet=True), "")):
        shown.result({"layers": 8}, "8 layers\n\n")
        assert capsys.readouterr() == (expected, "")
    Output(as_json=True).result({"layers": 8}, "8 layers")
    assert json.loads(capsys.readouterr().out) == {"layers": 8}


@pytest.mark.parametrize("quiet", [False, True])
def test_a_refusal_is_always_said_and_is_json_too_where_that_is_asked_for(capsys, quiet):
    assert Output(quiet=quiet).refuse("No disk.", 1) == 1
    assert capsys.readouterr() == ("", "graphquant: No disk.\n")
    assert Output(as_json=True, quiet=quiet).refuse("No disk.", 1) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": "No disk.", "code": 1}
    assert err == "graphquant: No disk.\n"


def test_progress_has_the_share_the_speed_and_the_time_that_is_left(capsys, clock, monkeypatch):
    shown = on_a_terminal(monkeypatch)
    clock.pass_by(2)
    shown.bytes(10**9, 4 * 10**9)
    assert capsys.readouterr().err.endswith("]  25%  0.50 GB/s  6 s left   ")
    clock.pass_by(2)
    shown.layers(4, 4)
    line = capsys.readouterr().err
    assert "#" * 40 in line and line.endswith("100%  4 of 4  0 s left   ")
    shown.result({}, "done")
    assert capsys.readouterr() == ("done\n", "\r\x1b[K")


def test_progress_is_drawn_ten_times_a_second_at_most_and_at_the_end(capsys, clock, monkeypatch):
    shown = on_a_terminal(monkeypatch)
    clock.pass_by(1)
    for done in range(1, 6):
        shown.layers(done, 5)
        clock.pass_by(0.01)
    assert capsys.readouterr().err.count("\r") == 2


@pytest.mark.parametrize("options", [{"quiet": True}, {"as_json": True}])
def test_progress_is_not_drawn_where_nobody_looks(capsys, clock, monkeypatch, options):
    shown = on_a_terminal(monkeypatch, **options)
    clock.pass_by(1)
    shown.bytes(1, 2)
    assert capsys.readouterr().err == ""
