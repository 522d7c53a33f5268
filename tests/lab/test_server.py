"""A live server runs the stock workflow, repeatably, and tells what went wrong when it does not."""

import pytest
import torch

from lab import workflows
from lab.server import PromptError, Server
from lab.tiny_models import FLUX, WAN


@pytest.mark.parametrize("tiny", [FLUX, WAN], ids=["flux", "wan"])
def test_the_plain_workflow_gives_a_finite_latent(server, tiny):
    latent = server.latents(server.run(workflows.plain(tiny)))[workflows.PLAIN]
    assert latent.shape == (1, *tiny.latent)
    assert latent.isfinite().all()


def test_the_same_prompt_run_afresh_gives_the_same_bits(server):
    latents = []
    for _ in range(2):
        server.forget()
        entry = server.run(workflows.plain(FLUX, seed=5))
        assert cached_nodes(entry) == []
        latents.append(server.latents(entry)[workflows.PLAIN])
    assert torch.equal(*latents)


def test_the_server_and_this_process_sample_alike(server, flux_patcher, sample):
    entry = server.run(workflows.plain(FLUX, seed=7))
    assert torch.equal(server.latents(entry)[workflows.PLAIN], sample(flux_patcher, seed=7).cpu())


def test_a_prompt_that_does_not_validate_names_node_and_input(server):
    prompt = workflows.plain(FLUX)
    prompt["load"]["inputs"]["unet_name"] = "missing.safetensors"
    with pytest.raises(PromptError, match=r"^UNETLoader: Value not in list: unet_name"):
        server.run(prompt)


def test_a_node_that_fails_gives_its_own_words(server):
    prompt = workflows.plain(FLUX)
    prompt["condition"]["inputs"]["width"] = FLUX.context_width + 1
    with pytest.raises(PromptError, match=r"^KSampler: RuntimeError: .*257"):
        server.run(prompt)


def test_a_cancelled_prompt_is_reported_as_interrupted(server):
    prompt = workflows.plain(FLUX, seed=9)
    prompt["sample_plain"]["inputs"]["steps"] = 10000
    prompt_id = server.queue(prompt)
    server.cancel(prompt_id)
    with pytest.raises(PromptError, match="interrupted in"):
        server.wait_for(prompt_id)


def test_a_server_that_cannot_start_shows_its_log(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)ended with code 2 .*unrecognized arguments"):
        Server(tmp_path, pack_folder=None, arguments=["--no-such-argument"]).start()


def cached_nodes(entry):
    return [
        node
        for event, details in entry["status"]["messages"]
        if event == "execution_cached"
        for node in details["nodes"]
    ]


def test_where_the_frontend_is_not_installed_an_empty_folder_is_served(tmp_path, monkeypatch):
    assert "--front-end-root" not in Server(tmp_path)._command()
    monkeypatch.setattr("lab.server.find_spec", lambda name: None)
    command = Server(tmp_path)._command()
    folder = command[command.index("--front-end-root") + 1]
    assert list(tmp_path.iterdir()) == [tmp_path / "no_frontend"] and folder.endswith("no_frontend")
