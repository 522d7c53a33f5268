"""The method fit: within the size, wide where it matters, and in words."""

import random
from dataclasses import replace

import pytest
import torch

from graphquant.quant_core import Fit, FitError, plan_component, quantize_component
from graphquant.quant_core.detect import module_bytes
from graphquant.quant_core.fit import with_fit
from graphquant.quant_core.storage import stock_marker


def size_of(model, fitted):
    return module_bytes(model) + sum(
        layer.bytes_after - layer.bytes_before for layer in fitted.plan.layers
    )


def fit(model, size, sensitivity=None, **options):
    return with_fit(
        plan_component(model, "fit"), Fit(size, sensitivity, **options), module_bytes(model)
    )


def test_200_random_sizes_are_kept_and_met_within_1_percent(model, sensitivity):
    whole = module_bytes(model)
    draw = random.Random(0)
    for _ in range(200):
        size = draw.randint(int(whole * 0.22), whole)
        fitted = fit(model, size, sensitivity)
        taken = size_of(model, fitted)
        assert taken == fitted.outcome.chosen.nbytes <= size
        # Twelve equal layers: the finest step is a quarter of a bit in one of them.
        assert taken > 0.955 * size


def test_what_is_quantized_takes_what_was_promised(model, sensitivity):
    size = module_bytes(model) // 3
    promised = fit(model, size, sensitivity).outcome.chosen.nbytes
    _, stats = quantize_component(model, "fit", fit=Fit(size, sensitivity))
    assert stats["model_bytes_after"] == module_bytes(model) == promised <= size


def test_what_matters_is_wider(model, sensitivity):
    fitted = fit(model, module_bytes(model) * 5 // 16, sensitivity)
    bits = [8 * layer.bytes_after / (128 * 384) for layer in fitted.plan.layers]
    of_blocks = [sum(pair) / 2 for pair in zip(bits[::2], bits[1::2], strict=True)]
    assert of_blocks == sorted(of_blocks, reverse=True)
    assert of_blocks[0] >= 6 and of_blocks[-1] <= 3.5


def test_the_prediction_is_the_root_of_the_sum_of_squares(model, sensitivity):
    from graphquant.quant_core.fit import format_error

    fitted = fit(model, module_bytes(model) // 3, sensitivity)
    per_error = sensitivity.per_error(layer.name for layer in fitted.plan.layers)
    squares = [(per_error[la.name] * format_error(la.format)) ** 2 for la in fitted.plan.layers]
    assert fitted.outcome.chosen.error == pytest.approx(sum(squares) ** 0.5)


def test_more_room_errs_less_and_less_room_more(model, sensitivity):
    outcome = fit(model, module_bytes(model) // 3, sensitivity).outcome
    assert outcome.more.error < outcome.chosen.error < outcome.less.error
    errors = [point.error for point in outcome.curve]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-6


def test_at_equal_size_it_errs_less_than_one_width_for_all(model, sensitivity):
    outcome = fit(model, module_bytes(model) // 2, sensitivity).outcome
    for name, point in outcome.uniform.items():
        equal = fit(model, point.nbytes, sensitivity).outcome.chosen
        assert equal.nbytes <= point.nbytes
        assert equal.error < 0.75 * point.error, name


def test_if_nothing_fits_the_error_names_the_smallest_size(model, sensitivity):
    with pytest.raises(FitError, match=r"Nothing fits in 0\.10 MiB: the smallest possible size"):
        fit(model, 100 * 1024, sensitivity)
    smallest = fit(model, module_bytes(model) // 4, sensitivity).outcome.curve[0].nbytes
    assert fit(model, smallest, sensitivity).outcome.less is None
    with pytest.raises(FitError):
        fit(model, smallest - 1, sensitivity)


def test_without_a_size_it_is_refused(model):
    with pytest.raises(FitError, match=r"fit needs a size\. Set size_gib"):
        quantize_component(model, "fit")
    assert not hasattr(model.blocks[0].qkv.weight, "quantized_weight")


def test_a_size_that_holds_the_model_leaves_it_as_it_is(model, sensitivity):
    fitted = fit(model, module_bytes(model), sensitivity)
    assert fitted.plan.quantized == ()
    assert fitted.outcome.chosen.error == 0


def test_stock_only_takes_formats_that_comfyui_has(model, sensitivity):
    fitted = fit(model, module_bytes(model) * 2 // 5, sensitivity, stock_only=True)
    assert len({str(layer.format) for layer in fitted.plan.quantized}) >= 2
    assert all(stock_marker(layer.format) for layer in fitted.plan.quantized)


def test_layers_that_share_a_weight_share_its_format_and_count_once(model, sensitivity):
    model.blocks[3].qkv.weight = model.blocks[0].qkv.weight
    fitted = fit(model, module_bytes(model) // 3, sensitivity)
    layers = {layer.name: layer for layer in fitted.plan.layers}
    assert layers["blocks.3.qkv"].format == layers["blocks.0.qkv"].format
    assert size_of(model, fitted) == fitted.outcome.chosen.nbytes


def test_unmeasured_layers_count_as_the_usual_one_does(model, sensitivity):
    from dataclasses import replace

    effects = {k: v for k, v in sensitivity.effects.items() if not k.startswith("blocks.0")}
    partial = replace(sensitivity, effects=effects)
    errors = partial.per_error(["blocks.0.qkv", "blocks.3.qkv"])
    assert errors["blocks.0.qkv"] == errors["blocks.3.qkv"]


def test_without_measurements_the_report_says_that_it_only_compares(model):
    fitted = fit(model, module_bytes(model) // 3)
    assert not fitted.outcome.measured
    assert "(assumed, to compare by)" in fitted.plan.notes[0]


def test_the_report_names_widths_by_kind(model, sensitivity):
    notes = fit(model, module_bytes(model) // 3, sensitivity).plan.notes
    assert notes[0].startswith("fit: ") and "allowed; predicted error of the final" in notes[0]
    assert "10 % more room: " in notes[1] and "10 % less: " in notes[1]
    assert [note.split(": ")[1] for note in notes[2:]] == ["blocks.*.qkv", "blocks.*.out"]


def test_other_methods_pass_through(model):
    plan = plan_component(model, "int8")
    assert with_fit(plan, None, module_bytes(model)) == (plan, None)


def test_float32_weights_count_as_what_they_take(model, sensitivity):
    model = model.to(torch.float32)
    fitted = fit(model, module_bytes(model) // 5, sensitivity)
    assert size_of(model, fitted) <= module_bytes(model) // 5


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("size", [NAN, INF, -INF, -1, None, "1 GiB", True])
def test_a_size_that_is_not_a_number_of_bytes_is_named(size):
    with pytest.raises(FitError, match=rf"^size is {size!r}\. Give a number"):
        Fit(size)


@pytest.mark.parametrize("size", [10**30, 1e300, 2**63])
def test_any_size_that_is_large_enough_leaves_the_model_as_it_is(model, size):
    fitted = fit(model, size)
    assert size_of(model, fitted) == module_bytes(model) == fitted.outcome.more.nbytes
    assert not fitted.plan.quantized


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sensitivity": "flux.json"}, "sensitivity is 'flux.json'"),
        ({"sensitivity": {}}, "sensitivity is {}"),
        ({"gains": [1]}, "gains is"),
        ({"gains": {"a": NAN}}, "The gain of a is nan"),
        ({"gains": {"a": -1.0}}, "The gain of a is -1.0"),
        ({"gains": {"a": "x"}}, "The gain of a is 'x'"),
    ],
    ids=str,
)
def test_other_arguments_of_another_kind_are_named(options, message):
    with pytest.raises(FitError) as error:
        Fit(1000, **options)
    assert str(error.value).startswith(message)


def test_room_is_used_also_where_most_layers_had_no_effect(model, sensitivity):
    """A run that does not reach a layer measures 0 there; another run may need it."""
    names = list(sensitivity.effects)
    for reached in (0, 1, 3):
        effects = {name: 0.1 * (at < reached) for at, name in enumerate(names)}
        size = module_bytes(model) // 2
        fitted = fit(model, size, replace(sensitivity, effects=effects))
        assert size_of(model, fitted) > 0.955 * size
