"""What the tests keep: no clock, no luck, and a place for each file that they test."""

import ast
import re
from pathlib import Path

import pytest

from lab.pack import ROOT

TESTS = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))
CLOCKS = ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "time_ns")
CLOCKS += ("thread_time", "process_time", "default_timer", "timeit")
# Of another process's own, or of a fixture that a test sees.
DRAWS = ("rand", "randn", "randint", "randperm", "normal", "random", "choice", "default_rng")


def tree_of(path: Path | str) -> ast.Module:
    text = (ROOT / path).read_text(encoding="utf-8") if isinstance(path, Path) else path
    return ast.parse(text)


def clocks_in(tree: ast.Module) -> list[str]:
    """The clocks that a test reads. To sleep while another process works reads none."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found += [alias.name for alias in node.names if alias.name in CLOCKS]
        elif isinstance(node, ast.Attribute):
            found += [ast.unparse(node)] if node.attr in CLOCKS else []
    return found + [text for text in ("time.time", "datetime.now") if text in ast.unparse(tree)]


def test_no_test_reads_a_clock():
    """Seconds are whoever else has the machine: tests count calls, launches and bytes
    (``lab.counting``), or lead a clock of their own (``lab.clock``); benchmarks measure."""
    assert clocks_in(tree_of("from time import perf_counter")) == ["perf_counter"]
    assert clocks_in(tree_of("time.monotonic()")) == ["time.monotonic"]
    assert clocks_in(tree_of("time.sleep(1)")) == []
    others = [path for path in TESTS if path.name != "test_tests.py"]
    assert {str(path): names for path in others if (names := clocks_in(tree_of(path)))} == {}


def drawn_at_import(tree: ast.Module) -> list[str]:
    """Calls of random functions outside every function's body, where no fixture has set a seed."""
    outside, found = list(tree.body), []
    while outside:
        node = outside.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            outside += getattr(node, "decorator_list", [])
            continue
        outside += ast.iter_child_nodes(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in DRAWS:
            seeded = any(word.arg == "generator" for word in node.keywords)
            found += [] if seeded else [ast.unparse(node)]
    return found


def test_nothing_random_is_drawn_when_a_test_file_is_imported():
    assert drawn_at_import(tree_of("X = torch.randn(3)")) == ["torch.randn(3)"]
    assert drawn_at_import(tree_of("def f(): return torch.randn(3)")) == []
    assert {str(path): calls for path in TESTS if (calls := drawn_at_import(tree_of(path)))} == {}


@pytest.mark.parametrize("run", [1, 2])
def test_random_numbers_are_the_same_in_every_test(run, drawn_by_a_fixture):
    import random

    import numpy as np
    import torch

    assert torch.rand(()).item() == pytest.approx(0.4962566)
    assert np.random.rand() == pytest.approx(0.5488135)
    assert random.random() == pytest.approx(0.8444219)


@pytest.fixture(params=[0, 5])
def drawn_by_a_fixture(request):
    """What a fixture draws changes nothing for the test."""
    import torch

    return torch.rand(request.param)


def test_hypothesis_draws_the_same_examples_in_every_run():
    from hypothesis import settings

    assert settings.default.derandomize


TESTED_BY = re.compile(r"Tested by (tests/[\w/]+\.py)\.")


def has_logic(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(tree))


def test_every_file_with_logic_has_its_test_by_name_or_says_which_test_it_has():
    sources = [p for room in ("quant_core", "nodes") for p in (ROOT / room).rglob("*.py")]
    named, said, without = 0, 0, []
    for path in (each.relative_to(ROOT) for each in sources if each.name != "__init__.py"):
        told = TESTED_BY.findall(ast.get_docstring(tree_of(path)) or "")
        if (ROOT / "tests" / path.parent / f"test_{path.stem}.py").is_file():
            named += 1
        elif told and all((ROOT / test).is_file() for test in told):
            said += 1
        elif has_logic(tree_of(path)):
            without.append(str(path))
    assert without == []
    assert named > said > 0


@pytest.mark.parametrize("room", ["quant_core", "nodes", "lab", "benchmarks", "docs"])
def test_every_test_that_is_named_exists(room):
    """A name with a folder, as tests/lab/test_server.py."""
    files = [p for p in (ROOT / room).rglob("*") if p.suffix in (".py", ".md")]
    gone = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in re.findall(r"tests/[\w/]+\.py", path.read_text(encoding="utf-8"))
        if not (ROOT / name).is_file()
    }
    assert gone == set()
