"""Quantizing never holds a second model: the small sibling of the streaming benchmark."""

import sys

import pytest

from benchmarks.streaming import OURS, markdown, measure_in_child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")


@pytest.fixture(scope="module")
def rows():
    """By method, each with its high-water mark anew, in one process."""
    return {row["case"]: row for row in measure_in_child(OURS, layers=12, width=1024, repeats=1)}


@pytest.mark.parametrize("method", OURS)
def test_the_peak_is_the_result_and_no_more_than_two_of_the_largest_layers(rows, method):
    row = rows[method]
    assert row["model_bytes"] == 2 * 2 * 512**2 * (4 + 6 + 9 + 12 + 16 + 8)
    assert row["largest_layer_bytes"] == 2 * 2048 * 2048
    share = row["result_bytes"] / row["model_bytes"]
    assert share < (0.27 if method == "int4" else 0.503)
    assert 0.9 * row["result_bytes"] < row["extra_peak_bytes"]
    assert row["extra_peak_bytes"] <= row["result_bytes"] + 2 * row["largest_layer_bytes"]


def test_the_table_has_a_row_a_case_with_mebibytes_and_seconds():
    row = {
        "case": "int8",
        "model_bytes": 64 * 2**20,
        "result_bytes": 32 * 2**20,
        "largest_layer_bytes": 2**20,
        "extra_peak_bytes": 33 * 2**20,
        "bound_bytes": 34 * 2**20,
        "seconds": 0.5,
        "cpu_seconds": 0.9,
        "gigabytes_a_second": 0.134,
    }
    results = {"machine": {"cpu": "a CPU"}, "layers": 24, "repeats": 3, "rows": [row]}
    assert "| int8 | 32 | 33 | 34 | 0.50 | 0.90 | 0.13 |" in markdown(results).splitlines()
