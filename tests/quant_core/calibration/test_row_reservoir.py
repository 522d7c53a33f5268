"""Rows of a layer's inputs: evenly drawn, shared where inputs are shared, within a limit."""

import pytest
import torch
from torch import nn

from graphquant.quant_core import QuantizationError, observe
from graphquant.quant_core.calibration.row_reservoir import Reservoirs, planned_rows, row_bytes


def fed(room, *calls):
    rows = Reservoirs({"layer": room})
    for call in calls:
        rows.add("layer", call)
    return rows.rows()["layer"]


def numbered(start, count):
    return torch.arange(start, start + count, dtype=torch.float32)[:, None].expand(-1, 3)


def test_few_rows_are_all_kept_in_bfloat16():
    kept = fed(10, numbered(0, 4), numbered(4, 3))
    assert kept.dtype == torch.bfloat16
    assert kept[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("size", [1, 7, 100, 256])
def test_each_call_of_a_long_run_is_as_likely_as_any_other(size):
    """1024 rows of 64 x size: of each quarter of the run about a quarter is kept."""
    kept = fed(64, *(numbered(call, 1).expand(size, 3) for call in range(64)))
    quarters = (kept[:, 0] // 16).int().bincount(minlength=4)
    assert quarters.min() >= 6 and quarters.sum() == 64


def test_layers_given_the_same_rows_share_them_and_part_when_they_differ():
    rows = Reservoirs({"q": 8, "k": 8, "other": 8})
    one, two, three = torch.randn(20, 4), torch.randn(20, 4), torch.randn(20, 4)
    for name in ("q", "k"):
        rows.add(name, one)
    rows.add("other", two)
    found = rows.rows()
    assert found["q"] is found["k"] is not found["other"]
    rows.add("q", two)
    rows.add("k", three)
    found = rows.rows()
    assert torch.equal(found["q"], fed(8, one, two))
    assert torch.equal(found["k"], fed(8, one, three))


def test_a_layer_called_out_of_step_begins_anew():
    rows = Reservoirs({"q": 4, "k": 4})
    first = torch.randn(4, 3)
    rows.add("q", first)
    rows.add("k", first)
    for _ in range(3):
        rows.add("q", torch.randn(4, 3))
    own = torch.randn(4, 3)
    rows.add("k", own)
    assert torch.equal(rows.rows()["k"], own.bfloat16())


def test_the_limit_makes_all_layers_keep_proportionally_fewer():
    widths = {"a": 1000, "b": 3000}
    assert planned_rows({"narrow": 128, "wide": 15360}) == {"narrow": 8192, "wide": 1024}
    assert planned_rows(widths, rows=100) == {"a": 409, "b": 136}
    whole = planned_rows(widths)
    limited = planned_rows(widths, limit=4_000_000)
    assert limited["a"] / whole["a"] == pytest.approx(limited["b"] / whole["b"], rel=0.01)
    assert 3_990_000 < row_bytes(widths, limited) <= 4_000_000


def test_the_hooks_are_gone_and_the_rows_are_what_the_layer_was_given(transformer, tokens):
    with observe(transformer, rows=2) as seen:
        transformer(tokens)
    assert not any(module._forward_hooks for module in transformer.modules())
    rows = seen.calibration.rows
    assert rows["img_in"].shape == (16, 64)
    given = tokens.reshape(-1, 64).bfloat16()
    assert all((row == given).all(1).any() for row in rows["img_in"])
    assert rows["blocks.0.attn"] is rows["blocks.0.norm1.linear"]
    assert seen.calibration.row_bytes < sum(each.nbytes for each in rows.values())


def test_an_error_in_the_block_leaves_no_hooks(transformer):
    with pytest.raises(RuntimeError, match="stop"), observe(transformer):
        raise RuntimeError("stop")
    assert not any(module._forward_hooks for module in transformer.modules())


def test_an_input_given_by_name_counts():
    layer = nn.Sequential(nn.Linear(8, 8)).requires_grad_(False)
    with observe(layer) as seen:
        layer[0](input=torch.ones(3, 8))
    assert seen.calibration.layers["0"].rows == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": -3}, "rows is -3"),
        ({"rows": 2.5}, "rows is 2.5"),
        ({"rows": "5"}, "rows is '5'"),
        ({"rows": True}, "rows is True"),
        ({"limit": "1 GiB"}, "limit is '1 GiB'"),
        ({"limit": float("nan")}, "limit is nan"),
        ({"limit": -1}, "limit is -1"),
        ({"percentile": "99"}, "percentile is '99'"),
        ({"percentile": None}, "percentile is None"),
        ({"model": "flux.safetensors"}, "model is a str, not an nn.Module"),
        ({"model": nn.Linear}, "model is a type, not an nn.Module"),
        ({"model": nn.Linear(4, 4, device="meta")}, "bias is on the meta device"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_named_before_anything_runs(arguments, message, transformer):
    with pytest.raises(QuantizationError) as error, observe(**{"model": transformer, **arguments}):
        pytest.fail("ran")
    assert str(error.value).startswith(message)
    assert not any(module._forward_hooks for module in transformer.modules())
