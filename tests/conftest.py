"""What tests stand on: the pack by its name, a real ComfyUI, tiny models, one live server.

Tests of quant_core ask for none of the ComfyUI fixtures and so never import it.
"""

import os
import random

# What is tested is tiny: a second thread waits longer for the first than it works, and where others
# have the cores five times as long (test_adapter_kinds.py: 44 s with one thread, 230 s with two).
# Set before torch is imported, and for every process that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from lab.pack import load_pack

load_pack()

# The same examples in every run. A shared machine may be slow, which is not a failure.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")


THREADS = torch.get_num_threads()


def seed_everything():
    """Random numbers without a generator of their own are the same in every run, whichever tests
    ran before."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    torch.set_num_threads(THREADS)  # a benchmark takes as many as the machine has
    seed_everything()  # for fixtures of any scope


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call():
    seed_everything()  # for the test, whatever its fixtures drew


def pytest_collection_modifyitems(items):
    # Several processes share the work by files, whose fixtures cost most; one has the browser, and
    # one the server.
    with_server = {item.path for item in items if "server" in getattr(item, "fixturenames", ())}
    for item in items:
        if item.get_closest_marker("xdist_group"):
            continue
        shared = "server" if item.path in with_server else str(item.path)
        group = "browser" if "tests/browser" in item.path.as_posix() else shared
        item.add_marker(pytest.mark.xdist_group(group))
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA GPU"))


@pytest.fixture(scope="session")
def comfy():
    """ComfyUI imported in this process: after it, ``import comfy.sd`` is ComfyUI's."""
    from lab.comfyui import import_comfyui

    import_comfyui()


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("comfyui") / "models" / "diffusion_models"


@pytest.fixture(scope="session")
def tiny_flux_file(comfy, models_folder):
    """A FLUX.1-architecture bf16 checkpoint, hidden size 256."""
    from lab.tiny_models import FLUX, tiny_flux

    return tiny_flux(models_folder / FLUX.file, hidden=256)


@pytest.fixture(scope="session")
def tiny_wan_file(comfy, models_folder):
    """A Wan 2.1 text-to-video bf16 checkpoint."""
    from lab.tiny_models import WAN, tiny_wan

    return tiny_wan(models_folder / WAN.file)


@pytest.fixture(scope="session")
def server(tiny_flux_file, tiny_wan_file, models_folder):
    """One live ComfyUI for the whole run, with this pack and the tiny checkpoints in place."""
    from lab.server import Server

    with Server(models_folder.parent.parent) as running:
        yield running


@pytest.fixture
def inference_mode():
    """The test's body runs as ComfyUI runs nodes: inside torch.inference_mode()."""
    with torch.inference_mode():
        yield


@pytest.fixture
def flux_patcher(tiny_flux_file, inference_mode):
    """The tiny Flux, freshly loaded by ComfyUI; the test runs in inference mode."""
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(tiny_flux_file))


@pytest.fixture
def wan_patcher(tiny_wan_file, inference_mode):
    """The tiny Wan 2.1, freshly loaded by ComfyUI; the test runs in inference mode."""
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(tiny_wan_file))


@pytest.fixture
def sample():
    """``sample(patcher, seed=0, steps=4)`` -> latent: the stock sampler on seeded noise."""
    from lab.sampling import sample
    from lab.tiny_models import FLUX, WAN

    tiny_models = {"Flux": FLUX, "WAN21": WAN}

    def run(patcher, **options):
        return sample(patcher, tiny_models[type(patcher.model).__name__], **options)

    return run
