"""Save and load as a user runs them: on a real server, and on one without this pack."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from lab import workflows
from lab.pack import ROOT
from lab.sampling import relative_l2
from lab.server import LAB_NODES, PromptError, Server
from lab.tiny_models import FLUX, WAN

LATENT = workflows.QUANTIZED


def saving(tiny, method, name, format="auto", overwrite=True, **options):
    """Quantize, sample, and save the model."""
    inputs = {"filename_prefix": name, "format": format, "overwrite": overwrite}
    node = {
        "class_type": "GQSaveQuantizedModel",
        "inputs": {"model": [workflows.QUANTIZE, 0], **inputs},
    }
    return workflows.quantized(tiny, method, **options) | {"file": node}


def loading(tiny, file):
    """The plain workflow, its loader replaced by ours."""
    node = {"class_type": "GQLoadQuantizedModel", "inputs": {"unet_name": file}}
    return workflows.plain(tiny) | {"load": node}


@pytest.fixture(scope="module")
def stock_server(tmp_path_factory):
    """A ComfyUI without this pack, its own process."""
    base = tmp_path_factory.mktemp("stock")
    arguments = ("--disable-all-custom-nodes", "--whitelist-custom-nodes", LAB_NODES)
    with Server(base, pack_folder=None, arguments=arguments) as running:
        with pytest.raises(LookupError):
            running.object_info("GQLoadQuantizedModel")
        yield running


@pytest.mark.parametrize(
    "tiny, method, granularity",
    [
        (FLUX, "int8", "per-row"),
        (FLUX, "fp8-weight-only", "per-tensor"),
        (FLUX, "int4", "per-row"),
        (WAN, "fp8-weight-only", "per-row"),
    ],
)
def test_what_was_saved_loads_and_samples_bit_by_bit(server, tiny, method, granularity):
    name = f"again/{tiny.file.split('.')[0]}-{method}"
    entry = server.run(saving(tiny, method, name, granularity=granularity))
    expected = server.latents(entry)[LATENT]
    report = entry["outputs"]["file"]["graphquant"][0]
    assert (server.models / f"{name}.safetensors").is_file()
    assert report["path"] == str(server.models / f"{name}.safetensors")
    server.forget()
    loaded = server.run(loading(tiny, f"{name}.safetensors"))
    assert torch.equal(server.latents(loaded)[workflows.PLAIN], expected)


@pytest.mark.parametrize(
    "tiny, method, granularity, bound",
    [
        (FLUX, "int8", "per-row", 0.02),
        (FLUX, "int8-dynamic", "per-tensor", 0.02),
        (FLUX, "fp8-weight-only", "per-tensor", 0.005),
        (WAN, "int8", "per-row", 0.02),
    ],
)
def test_a_comfyui_without_this_pack_samples_a_stock_file_alike(
    server, stock_server, tiny, method, granularity, bound
):
    name = f"stock-{tiny.file.split('.')[0]}-{method}"
    entry = server.run(saving(tiny, method, name, "stock", granularity=granularity))
    expected = server.latents(entry)[LATENT]
    shutil.copy(server.models / f"{name}.safetensors", stock_server.models)
    plain = stock_server.run(workflows.plain(replace(tiny, file=f"{name}.safetensors")))
    found = stock_server.latents(plain)[workflows.PLAIN]
    assert relative_l2(found, expected) < bound


@pytest.mark.parametrize("tiny, share", [(FLUX, 0.5), (WAN, 1.11)])
def test_a_comfyui_without_this_pack_loads_what_fit_chose_of_its_formats(
    server, stock_server, tiny, share
):
    name = f"fit-{tiny.file.split('.')[0]}"
    # A CPU has float32 weights, twice the file's; most of the tiny Wan stays as it is.
    size = (server.models / tiny.file).stat().st_size * share / 1024**3
    entry = server.run(saving(tiny, "fit", name, "stock", size_gib=size, stock_only=True))
    formats = {
        layer["format"]
        for layer in entry["outputs"][workflows.QUANTIZE]["graphquant"][0]["layers"]
        if layer["format"]
    }
    assert len(formats) == 2  # NVFP4 and INT8
    expected = server.latents(entry)[LATENT]
    shutil.copy(server.models / f"{name}.safetensors", stock_server.models)
    plain = stock_server.run(workflows.plain(replace(tiny, file=f"{name}.safetensors")))
    assert relative_l2(stock_server.latents(plain)[workflows.PLAIN], expected) < 0.02


def test_a_comfyui_without_this_pack_says_that_a_file_of_ours_holds_no_model(server, stock_server):
    server.run(saving(FLUX, "int4", "private"))
    shutil.copy(server.models / "private.safetensors", stock_server.models)
    with pytest.raises(PromptError, match="Could not detect model type"):
        stock_server.run(workflows.plain(replace(FLUX, file="private.safetensors")))


def test_a_file_that_exists_is_refused_in_the_first_line(server):
    server.run(saving(FLUX, "int8", "taken"))
    before = (server.models / "taken.safetensors").read_bytes()
    with pytest.raises(PromptError) as error:
        server.run(saving(FLUX, "int4", "taken", overwrite=False))
    first = error.value.details["exception_message"].splitlines()[0]
    assert first.startswith("taken.safetensors exists in ") and "turn overwrite on" in first
    assert (server.models / "taken.safetensors").read_bytes() == before


def test_a_file_saved_anew_is_loaded_anew(server):
    for method in ("int8", "int4"):
        entry = server.run(saving(FLUX, method, "renewed"))
        loaded = server.run(loading(FLUX, "renewed.safetensors"))
        expected = server.latents(entry)[LATENT]
        assert torch.equal(server.latents(loaded)[workflows.PLAIN], expected)


def test_a_broken_file_is_named_in_the_first_line(server):
    (server.models / "broken.safetensors").write_bytes(b"\x10" * 40)
    with pytest.raises(PromptError) as error:
        server.run(loading(FLUX, "broken.safetensors"))
    first = error.value.details["exception_message"].splitlines()[0]
    assert first.startswith("broken.safetensors claims a header of ")


def test_the_example_saves_first_and_holds_the_loading_half_muted(server):
    runs, muted = 0, 2
    file = ROOT / "example_workflows" / "Quantize once, save and load.json"
    example = json.loads(file.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in example["nodes"]}
    modes = {node["type"]: node["mode"] for node in nodes.values()}
    assert modes["GQSaveQuantizedModel"] == runs and modes["GQLoadQuantizedModel"] == muted
    for _, origin, slot, target, target_slot, kind in example["links"]:
        assert nodes[origin]["mode"] == nodes[target]["mode"]
        assert nodes[origin]["outputs"][slot]["type"] == kind
        assert nodes[target]["inputs"][target_slot]["type"] in (kind, "*")
    for kind in modes.keys() - {"MarkdownNote"}:
        assert server.object_info(kind)["name"] == kind
