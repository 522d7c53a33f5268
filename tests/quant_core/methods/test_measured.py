"""Methods that need a measurement first say so, and have what stands in for them."""

from graphquant.quant_core.formats import Float8, StaticFloat8
from graphquant.quant_core.methods import MEASURED, METHODS, Choice


def test_they_are_marked():
    assert MEASURED == ("fp8-static", "fastest", "fit", "svdquant-int4", "svdquant-nvfp4")
    found = [METHODS[name].weight_only for name in MEASURED]
    assert found == ["fp8-weight-only", "int8", "", "nf4-fine", "nvfp4-weight-only"]


def test_static_fp8_has_no_scale_of_activations_before_the_plan_gives_it_one():
    fmt = METHODS["fp8-static"].choose((32, 48), "per-row").format
    assert fmt == StaticFloat8() and fmt.needs_input_scale


def test_static_fp8_is_weight_only_where_k_or_n_is_not_in_sixteens():
    choice = METHODS["fp8-static"].choose((24, 48), "per-row")
    assert choice.format == Float8(granularity="per-tensor")
    assert choice.note == "weight-only: 24 x 48 is not in sixteens, which FP8 matmuls need"


def test_fastest_chooses_nothing_by_a_shape_alone():
    choice = METHODS["fastest"].choose((32, 48), "per-row")
    assert choice == Choice(None, choice.note) and choice.note.startswith("fastest times")
