"""What every test keeps: it reads no clock and draws no luck."""

import ast
from pathlib import Path

import pytest

from lab.pack import ROOT

TESTS = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))
CLOCKS = ("time", "timeit", "datetime")
# Of another process's own, or of a fixture that a test sees.
DRAWS = ("rand", "randn", "randint", "randperm", "normal", "random", "choice", "default_rng")


def tree_of(path: Path | str) -> ast.Module:
    text = (ROOT / path).read_text(encoding="utf-8") if isinstance(path, Path) else path
    return ast.parse(text)


def clocks_in(tree: ast.Module) -> list[str]:
    """The modules of clocks that a test imports."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.append(node.module)
    return [name for name in found if name.partition(".")[0] in CLOCKS]


def test_no_test_reads_a_clock():
    """Seconds are whoever else has the machine: tests count calls, launches and bytes
    (``lab.counting``), or lead a clock of their own (``lab.clock``); benchmarks measure."""
    assert clocks_in(tree_of("def f():\n    from time import perf_counter")) == ["time"]
    assert {str(path): names for path in TESTS if (names := clocks_in(tree_of(path)))} == {}


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
