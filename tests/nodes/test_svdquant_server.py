"""SVDQuant's methods as a user runs them: calibrated, sampled, with LoRAs, saved and loaded."""

import pytest
import torch

from lab import workflows
from lab.sampling import relative_l2
from lab.server import PromptError
from lab.tiny_models import FLUX
from tests.nodes.test_lora_server import add_lora, lora_names, run  # noqa: F401

METHODS = ("svdquant-int4", "svdquant-nvfp4")


def prompt_of(method, name, loras=(), rank=8):
    """Calibrate, quantize, add LoRAs, sample; save the quantized model as ``name``, plain too."""
    prompt = workflows.both(FLUX, method, calibration=["calibrate", 0], rank=rank)
    prompt["calibrate"] = {
        "class_type": "GQCalibrateActivations",
        "inputs": {
            "model": ["load", 0],
            "positive": ["condition", 0],
            "latent_image": ["empty", 0],
            "steps": 4,
            "rows": 256,
        },
    }
    prompt["file"] = {
        "class_type": "GQSaveQuantizedModel",
        "inputs": {"model": ["quantize", 0], "filename_prefix": name, "overwrite": True},
    }
    source = "quantize"
    for index, (file, strength) in enumerate(loras):
        source = add_lora(prompt, f"after{index}", source, file, strength)
    prompt["sample_quantized"]["inputs"]["model"] = [source, 0]
    return prompt


def loaded(name):
    """Load the file ``name`` and sample."""
    prompt = workflows.plain(FLUX)
    prompt["load"] = {
        "class_type": "GQLoadQuantizedModel",
        "inputs": {"unet_name": f"{name}.safetensors"},
    }
    return prompt


@pytest.mark.parametrize("method", METHODS)
def test_calibrated_sampled_saved_and_loaded(server, lora_names, method):  # noqa: F811
    entry = server.run(prompt_of(method, method))
    report = entry["outputs"][workflows.QUANTIZE]["graphquant"][0]
    latents = server.latents(entry)
    plain, ours = latents[workflows.PLAIN], latents[workflows.QUANTIZED]
    assert 1e-4 < relative_l2(ours, plain) < 0.2
    formats = {layer["format"] for layer in report["layers"] if layer["action"] == "quantize"}
    assert any(each.startswith("svdquant") and "rank 8" in each for each in formats)
    rounded = [layer["rounding"] for layer in report["layers"] if layer["rounding"]]
    assert any(each["way"] == "compensated" for each in rounded)
    again = server.latents(server.run(loaded(method)))[workflows.PLAIN]
    assert torch.equal(again, ours)

    first, second = lora_names

    def with_loras(*loras):
        entry = server.run(prompt_of(method, method, loras))
        return server.latents(entry)[workflows.QUANTIZED]

    assert torch.equal(with_loras((first, 0.0)), ours)
    one, two = with_loras((first, 1.0)), with_loras((first, 1.0), (second, 1.0))
    for after, wanted in ((one, [(first, 1.0)]), (two, [(first, 1.0), (second, 1.0)])):
        effect, exact = after - ours, run(server, after=wanted) - plain
        gain = ((effect * exact).sum() / (exact * exact).sum()).item()
        cosine = torch.cosine_similarity(effect.flatten(), exact.flatten(), 0).item()
        print(method, len(wanted), gain, cosine)
        assert cosine > 0.99
        assert 0.95 < gain < 1.05


@pytest.mark.parametrize("method", METHODS)
def test_without_a_calibration_the_first_line_names_the_node(server, method):
    with pytest.raises(PromptError) as error:
        server.run(workflows.quantized(FLUX, method))
    first = error.value.details["exception_message"].splitlines()[0]
    assert first.startswith(f"{method} needs rows of the inputs of ")
    assert "Connect Calibrate Activations" in first
