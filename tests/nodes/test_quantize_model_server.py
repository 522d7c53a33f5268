"""Quantize Model as a user runs it: over the HTTP API of a real ComfyUI server."""

import pytest
import torch

from lab import workflows
from lab.sampling import relative_l2
from lab.server import PromptError
from lab.tiny_models import FLUX, WAN

METHODS = ["fp8-dynamic", "fp8-weight-only", "int8", "int4", "int8-dynamic"]
# A big picture of the tiny model, so that there is something to interrupt.
MANY_STEPS = 10000


@pytest.fixture(scope="module")
def reference(server):
    return server.latents(server.run(workflows.plain(FLUX)))[workflows.PLAIN]


@pytest.mark.parametrize("method", METHODS)
def test_an_api_prompt_of_two_inputs_runs_every_method(server, reference, method):
    entry = server.run(workflows.quantized(FLUX, method))
    latent = server.latents(entry)[workflows.QUANTIZED]
    report = entry["outputs"][workflows.QUANTIZE]["graphquant"][0]
    assert latent.isfinite().all()
    bound = {"int4": 0.10, "int8-dynamic": 0.03}.get(method, 0.02)
    assert 1e-4 < relative_l2(latent, reference) <= bound
    assert report["method"] == method
    assert report["quantized_layers"] == 32
    share = report["quantized_bytes_after"] / (2 * report["quantized_elements"])
    assert share <= (0.29 if method == "int4" else 0.51)


def test_the_plain_branch_is_bit_identical_in_that_prompt_and_the_next(server, reference):
    together = server.latents(server.run(workflows.both(FLUX, "int4")))
    assert torch.equal(together[workflows.PLAIN], reference)
    assert relative_l2(together[workflows.QUANTIZED], reference) > 1e-3
    server.forget()
    alone = server.latents(server.run(workflows.plain(FLUX)))
    assert torch.equal(alone[workflows.PLAIN], reference)


def test_a_quantized_branch_is_the_same_with_and_without_its_neighbour(server):
    alone = server.latents(server.run(workflows.quantized(FLUX, "int8", seed=3)))
    together = server.latents(server.run(workflows.both(FLUX, "int8", seed=3)))
    assert torch.equal(alone[workflows.QUANTIZED], together[workflows.QUANTIZED])


def test_wan_is_recognised_from_its_file_and_quantized(server):
    entry = server.run(workflows.both(WAN, "int8"))
    latents = server.latents(entry)
    report = entry["outputs"][workflows.QUANTIZE]["graphquant"][0]
    assert report["preset"] == "wan"
    assert 1e-4 < relative_l2(latents[workflows.QUANTIZED], latents[workflows.PLAIN]) <= 0.02


def test_a_cached_run_sends_the_report_again(server):
    prompt = workflows.quantized(FLUX, "int8", seed=11)
    first, second = server.run(prompt), server.run(prompt)
    key = workflows.QUANTIZE
    assert second["outputs"][key]["graphquant"] == first["outputs"][key]["graphquant"]


def test_an_unknown_method_is_refused_before_anything_runs(server):
    with pytest.raises(PromptError, match="Value not in list: method"):
        server.run(workflows.quantized(FLUX, "int9"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"include": "no_such_block"}, "Include pattern 'no_such_block' matches none"),
        ({"exclude": "*"}, "No layer is left to quantize: 42 of 42"),
    ],
)
def test_the_user_reads_the_fact_first(server, options, words):
    with pytest.raises(PromptError) as error:
        server.run(workflows.quantized(FLUX, "int8", **options))
    assert words in str(error.value).splitlines()[0]


def test_after_a_cancelled_prompt_both_branches_run_as_before(server, reference):
    prompt = workflows.quantized(FLUX, "int8", seed=12)
    prompt["sample_quantized"]["inputs"]["steps"] = MANY_STEPS
    prompt_id = server.queue(prompt)
    server.cancel(prompt_id)
    with pytest.raises(PromptError, match="interrupted in"):
        server.wait_for(prompt_id)
    latents = server.latents(server.run(workflows.both(FLUX, "int8")))
    assert torch.equal(latents[workflows.PLAIN], reference)
    assert relative_l2(latents[workflows.QUANTIZED], reference) <= 0.02


def test_the_node_is_offered_with_its_tooltips(server):
    info = server.object_info("GQQuantizeModel")
    assert info["display_name"] == "Quantize Model (FP8, INT8, INT4)"
    assert info["category"] == "model/quantization"
    assert info["output"] == ["MODEL", "STRING", "IMAGE"]
    inputs = {**info["input"]["required"], **info["input"]["optional"]}
    assert all("tooltip" in options[1] for options in inputs.values())
