"""Steps without rounded activations: which those are, and what the layers compute in them."""

import pytest
import torch

from lab.sampling import relative_l2

pytestmark = pytest.mark.usefixtures("comfy")

EIGHT = torch.tensor([1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0])


def steps_of(text):
    from graphquant.nodes.bridge.tensor.exact_steps import ExactSteps

    return ExactSteps.of(text)


@pytest.mark.parametrize(
    "text, exact",
    [
        ("first 2", [1.0, 0.875]),
        ("last 2", [0.25, 0.125]),
        ("first 1, last 1", [1.0, 0.125]),
        ("FIRST 1\nlast 1", [1.0, 0.125]),
        ("sigma 0-0.3", [0.25, 0.125]),
        ("sigmas 0.9 - 0.6, last 1", [0.875, 0.75, 0.625, 0.125]),
        ("first 99", EIGHT[:8].tolist()),
        ("first 0", []),
    ],
)
def test_the_steps_are_counted_along_the_schedule(text, exact):
    steps = steps_of(text)
    assert [s for s in EIGHT[:8].tolist() if steps.holds(s, EIGHT)] == exact


def test_a_call_between_two_sigmas_belongs_to_the_earlier_step():
    steps = steps_of("first 2")
    assert steps.holds(0.8, EIGHT) and not steps.holds(0.7, EIGHT)


def test_without_a_schedule_only_ranges_hold():
    assert not steps_of("first 2").holds(1.0, None)
    assert steps_of("sigma 0.5-1").holds(0.7, None)


@pytest.mark.parametrize("text", ["", " , ", "\n"])
def test_an_empty_text_is_none(text):
    assert steps_of(text) is None


@pytest.mark.parametrize(
    "text", ["first", "last two", "2", "sigma 1", "first -1", "first 2 last 2"]
)
def test_other_texts_are_refused_in_words(text):
    from graphquant.quant_core import ConfigError

    with pytest.raises(ConfigError, match="exact_steps says"):
        steps_of(text)


@pytest.fixture
def quantize(flux_patcher):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    return lambda method, **options: GQQuantizeModel.execute(flux_patcher, method, **options)


def test_in_every_step_it_is_the_weight_only_method(quantize, sample):
    everywhere = quantize("int8-dynamic", exact_steps="first 99").result[0]
    assert torch.equal(sample(everywhere), sample(quantize("int8").result[0]))
    assert not torch.equal(sample(everywhere), sample(quantize("int8-dynamic").result[0]))


@pytest.mark.parametrize("method", ["llm.int8", "int8-convrot"])
def test_every_method_that_rounds_activations_errs_less_in_exact_steps(
    flux_patcher, quantize, sample, method
):
    plain = sample(flux_patcher)
    rounded, exact = (
        relative_l2(sample(quantize(method, exact_steps=text).result[0]), plain)
        for text in ("", "first 99")
    )
    assert exact < 0.9 * rounded


def test_some_steps_lie_between_none_and_all(flux_patcher, quantize, sample):
    plain = sample(flux_patcher)
    none, last, every = (
        relative_l2(sample(quantize("int8-dynamic", exact_steps=text).result[0]), plain)
        for text in ("", "last 2", "first 99")
    )
    assert every < last < none


def test_it_takes_no_memory_and_ends_with_the_call(quantize, sample):
    from graphquant.nodes.bridge.tensor.exact_steps import _Now

    exact = quantize("int8-dynamic", exact_steps="last 1").result[0]
    assert exact.model_size() == quantize("int8-dynamic").result[0].model_size()
    sample(exact)
    assert not _Now.exact


def test_calls_of_several_gpus_end_without_a_trace_whichever_is_first():
    """MultiGPU CFG Split runs a step's calls in threads."""
    from graphquant.nodes.bridge.tensor.exact_steps import _Now

    first, second = _Now.call(), _Now.call()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert _Now.exact
    second.__exit__(None, None, None)
    assert not _Now.exact


def test_a_call_that_fails_leaves_no_trace(quantize):
    from graphquant.nodes.bridge.tensor import exact_steps

    exact = quantize("int8-dynamic", exact_steps="sigma 0-99").result[0]
    wrapper = exact.get_wrappers("apply_model", exact_steps.KEY)[0]
    seen = []

    def fails(*_):
        seen.append(exact_steps._Now.exact)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        wrapper(fails, None, torch.ones(1))
    assert seen == [True] and not exact_steps._Now.exact


def test_a_method_that_rounds_no_activations_is_warned_of(quantize):
    report = quantize("int8", exact_steps="last 1").result[1]
    assert "exact_steps has no effect: int8 rounds no activations" in report
