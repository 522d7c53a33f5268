"""A quantized pipeline is saved by save_pretrained and loaded back bit by bit."""

import pytest
import torch

from graphquant.quant_core.applying.pipeline import quantize_pipeline
from graphquant.quant_core.conversion.inspection import inspect_file
from graphquant.quant_core.conversion.pipeline_files import load_pipeline, save_pipeline
from graphquant.quant_core.errors import StorageError

pytest.importorskip("diffusers", reason="diffusers is not installed")

from lab.tiny_pipelines import PIPELINES, draw, tiny_pipeline


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("method", ["int8", "nvfp4"])
def test_what_is_loaded_back_draws_the_same_bits(name, method, tmp_path):
    pipe = tiny_pipeline(name)
    core = "unet" if "unet" in pipe.components else "transformer"
    quantize_pipeline(pipe, {core: method, "text_encoder": "int8", "vae": "int8"})
    expected = draw(name, pipe)
    keys = set(getattr(pipe, core).state_dict())
    save_pipeline(pipe, tmp_path)
    assert set(getattr(pipe, core).state_dict()) == keys
    absent = {n: None for n, module in pipe.components.items() if module is None}
    loaded = load_pipeline(type(pipe), tmp_path, **absent)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(draw(name, loaded), expected)


def test_the_files_are_this_packs_own(tmp_path):
    pipe = tiny_pipeline("flux")
    quantize_pipeline(pipe, {"transformer": "int8"})
    save_pipeline(pipe, tmp_path)
    found = inspect_file(tmp_path / "transformer")
    assert found.by_format()["int8 per-row"][0] > 20
    assert found.readers[0].startswith("Load Quantized Model")


def test_what_is_not_a_pipeline_or_lacks_a_tensor_is_refused(tmp_path):
    from diffusers import FluxPipeline
    from safetensors.torch import load_file, save_file

    with pytest.raises(StorageError, match=r"no readable model_index\.json"):
        load_pipeline(FluxPipeline, tmp_path)
    pipe = tiny_pipeline("flux")
    quantize_pipeline(pipe, {"transformer": "int8"})
    save_pipeline(pipe, tmp_path)
    (file,) = (tmp_path / "transformer").glob("*.safetensors")
    tensors = load_file(file)
    del tensors["graphquant.proj_out.bias"]
    save_file(tensors, file)
    with pytest.raises(StorageError, match=r"disagree on 1 tensors, such as proj_out\.bias"):
        load_pipeline(FluxPipeline, tmp_path)
