"""A file that ComfyUI has quantized in part, and Quantize Model the rest of: saved and loaded."""

import pytest
import torch

from lab.sampling import relative_l2


@pytest.fixture
def partly(flux_patcher, quantize, save, tmp_path):
    """``partly(layers)`` -> ComfyUI's own MODEL of a file with INT8 in ``layers`` alone."""
    import comfy.sd

    def run(layers):
        file = tmp_path / "partly.safetensors"
        save(quantize(flux_patcher, include=layers), file, file_format="stock")
        return comfy.sd.load_diffusion_model(str(file))

    return run


@pytest.mark.parametrize(
    "first, then",
    [
        (("double_blocks.0",), "int4"),
        (("single_blocks.*",), "int8"),
        (("*.img_mlp.*",), "fp8-weight-only"),
        (("double_blocks.*",), "int8-convrot"),
        (("*.qkv",), "nf4"),
    ],
)
def test_the_rest_is_quantized_saved_and_loaded_as_the_server_does(
    partly, latent, file, quantize, save, load, first, then
):
    assert torch.is_inference_mode_enabled()
    model = quantize(partly(first), then)
    expected = latent(model)
    save(model, file)
    assert relative_l2(latent(load(file)[0]), expected) < 1e-6


def test_a_file_that_would_not_load_is_not_kept(partly, quantize, save, file, monkeypatch):
    from graphquant.nodes.bridge.tensor import placeholder
    from graphquant.quant_core import QuantizationError

    model = quantize(partly(("double_blocks.0",)), "int4")
    monkeypatch.setattr(placeholder, "_CASTS", ())
    with pytest.raises(QuantizationError, match=r"^saved.safetensors was not kept"):
        save(model, file)
    assert not file.exists()
