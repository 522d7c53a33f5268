"""Results in words: columns under each other, the largest first, and what cannot be, below."""

from pathlib import Path

from graphquant.quant_core.cli import tables
from graphquant.quant_core.conversion.estimation import Estimate
from graphquant.quant_core.conversion.inspection import InspectedLayer, Inspection
from graphquant.quant_core.conversion.verification import Verification, VerifiedLayer
from graphquant.quant_core.presets import Recognised

MIB = 2**20


def test_estimates_stand_by_size_and_what_cannot_be_below():
    found = [
        Estimate("int4", 3 * MIB, 8, 4.25, stock=False),
        Estimate("fp8", problem="no such thing"),
        Estimate("int8", 12 * MIB, 8, 8.125, stock=True),
    ]
    assert tables.estimates(found).splitlines() == [
        "method  size      bits  layers  format",
        "int8    12.0 MiB  8.12  8       stock",
        "int4    3.0 MiB   4.25  8       graphquant",
        "fp8: no such thing",
    ]


def test_an_inspection_has_formats_with_layers_and_bytes_and_who_reads_the_file():
    layers = (
        InspectedLayer("a", "int8 per-row", (64, 32), 2 * MIB),
        InspectedLayer("b", "int8 per-row", (64, 32), 2 * MIB),
        InspectedLayer("c", "bfloat16", (8, 8), 5 * MIB),
    )
    model = Recognised("flux1", "transformer", None, "model.")
    found = Inspection(
        Path("x.safetensors"), model, 9, 10 * MIB, layers, MIB, ("Load it.",), {"method": "int8"}
    )
    lines = tables.inspection(found).splitlines()
    assert lines[:3] == [
        "x.safetensors: 9 tensors, 10.0 MiB",
        "transformer flux1, preset generic",
        "names begin with model.",
    ]
    assert lines[5:8] == [
        "1       bfloat16      5.0 MiB",
        "2       int8 per-row  4.0 MiB",
        "        other         1.0 MiB",
    ]
    assert lines[-2:] == ["read by: Load it.", "method: int8"]
    assert "a      int8 per-row  64 x 32  2.0 MiB" in tables.inspection(found, True).splitlines()


def test_a_verification_has_every_fault_and_the_ten_worst_layers_or_all():
    found = Verification(Path("x"), Path("y"), 40, equal=3, faults=["a is missing."])
    found.layers = [VerifiedLayer(f"layer{i}", "int8", i / 100) for i in range(12)]
    lines = tables.verification(found).splitlines()
    assert lines[0] == "x has 1 faults: 40 tensors, 12 layers quantized, 3 tensors equal to y's"
    assert lines[1] == "- fault: a is missing."
    assert len(lines) == 2 + 1 + 1 + 10
    assert lines[4].split() == ["layer11", "int8", "0.1100"]
    assert len(tables.verification(found, every_layer=True).splitlines()) == 2 + 1 + 1 + 12


def test_a_file_alone_has_no_errors_to_show():
    found = Verification(Path("x"), None, 4, layers=[VerifiedLayer("a", "int8")])
    assert tables.verification(found) == "x is whole: 4 tensors, 1 layers quantized"
