"""The method "fastest"."""

import pytest
import torch

from graphquant.quant_core import plan_component
from graphquant.quant_core.formats import Int4, Int8
from graphquant.quant_core.machine import fastest as autoquant
from graphquant.quant_core.machine.fastest import Search, Timing, fastest_choice, measure

CPU = torch.device("cpu")


@pytest.fixture
def timings(monkeypatch):
    """The clock told: int4 quickest, then int8, then the unquantized layer."""
    told = (
        Timing("bfloat16", None, 3e-3, 0.002),
        Timing("int8", Int8(), 2e-3, 0.008),
        Timing("int4", Int4(), 1e-3, 0.094),
    )
    monkeypatch.setattr(autoquant, "measure", lambda *_: told)


@pytest.mark.parametrize("max_error, fmt", [(0.2, Int4()), (0.05, Int8()), (0.005, None)])
def test_the_quickest_within_the_error_is_taken_and_all_are_reported(timings, max_error, fmt):
    choice = fastest_choice((128, 128), "per-row", Search(max_error, rows={(128, 128): 77}))
    assert choice.format == fmt
    assert " is fastest at 77 rows: int4 1.00 ms (error 0.094), int8 2.00 ms" in choice.note


def test_a_plan_whose_layers_all_stay_says_so_and_is_not_an_error(timings):
    model = torch.nn.Sequential(torch.nn.Linear(128, 128))
    plan = plan_component(model, "fastest", search=Search(0.005))
    assert not plan.quantized
    assert plan.warnings == (
        "No method is faster than the unquantized layers within the error allowed.",
    )


def test_measured_errors_are_those_of_the_formats_and_every_candidate_is_timed():
    found = {each.method: each for each in measure((256, 512), 64, "per-row", CPU, torch.bfloat16)}
    assert set(found) == {"bfloat16", "int8-dynamic", "fp8-weight-only", "int8", "int4"}
    expected = {"int8": 0.0075, "int8-dynamic": 0.011, "fp8-weight-only": 0.026, "int4": 0.0945}
    for method, error in expected.items():
        assert found[method].error == pytest.approx(error, rel=0.1)
    assert all(each.seconds > 0 for each in found.values())


def test_a_shape_is_measured_once_for_a_device():
    first = measure((64, 128), 16, "per-row", CPU, torch.bfloat16)
    assert measure((64, 128), 16, "per-row", CPU, torch.bfloat16) is first
