"""VAEs for the tests of the node and of the bridge."""

import pytest


@pytest.fixture(scope="session")
def vae_file(comfy, models_folder):
    """``vae_file(tiny)``: the checkpoint, written once, where the live server finds it."""
    from lab.tiny_vaes import tiny_vae_file

    folder = models_folder.parent / "vae"

    def write(tiny):
        path = folder / tiny.file
        return path if path.exists() else tiny_vae_file(tiny, folder)

    return write


@pytest.fixture
def load_vae(vae_file, inference_mode):
    """``load_vae(tiny)``: the VAE as ComfyUI loads it; the test runs in inference mode."""
    import comfy.sd
    import comfy.utils

    def load(tiny):
        state, metadata = comfy.utils.load_torch_file(str(vae_file(tiny)), return_metadata=True)
        return comfy.sd.VAE(sd=state, metadata=metadata)

    return load
