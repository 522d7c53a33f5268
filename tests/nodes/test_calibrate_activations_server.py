"""Static FP8 as a user runs it: calibrated, sampled, saved, and read by a ComfyUI without us."""

import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from lab import workflows
from lab.sampling import relative_l2
from lab.server import LAB_NODES, PromptError, Server
from lab.tiny_models import FLUX


def static(tiny, name, **calibration):
    """Calibrate, quantize, sample, and save as ComfyUI's own format."""
    saving = {"filename_prefix": name, "format": "stock", "overwrite": True}
    return workflows.both(tiny, "fp8-static", calibration=["calibrate", 0]) | {
        "calibrate": {
            "class_type": "GQCalibrateActivations",
            "inputs": {
                "model": ["load", 0],
                "positive": ["condition", 0],
                "latent_image": ["empty", 0],
                "steps": 4,
                **calibration,
            },
        },
        "file": {
            "class_type": "GQSaveQuantizedModel",
            "inputs": {"model": [workflows.QUANTIZE, 0], **saving},
        },
    }


@pytest.fixture(scope="module")
def stock_server(tmp_path_factory):
    """A ComfyUI without this pack that multiplies FP8 activations, as on a GPU that has FP8."""
    arguments = ("--disable-all-custom-nodes", "--whitelist-custom-nodes", LAB_NODES)
    arguments += ("--supports-fp8-compute",)
    base = tmp_path_factory.mktemp("stock")
    with Server(base, pack_folder=None, arguments=arguments) as running:
        yield running


@pytest.fixture(scope="module")
def wide(server):
    """The tiny Flux with hidden activations of around a thousand, as trained models have them: FP8
    ends at 448."""
    tensors = load_file(server.models / FLUX.file)
    for name in tensors:
        if "_mlp.0." in name:
            tensors[name] = tensors[name] * 1000
        elif "_mlp.2.weight" in name:
            tensors[name] = tensors[name] / 1000
    save_file(tensors, server.models / "wide.safetensors")
    return replace(FLUX, file="wide.safetensors")


def test_stock_comfyui_computes_better_with_the_calibrated_scales_than_with_its_own(
    server, stock_server, wide
):
    entry = server.run(static(wide, "static"))
    latents = server.latents(entry)
    plain, ours = latents[workflows.PLAIN], latents[workflows.QUANTIZED]
    saved = server.models / "static.safetensors"
    shutil.copy(saved, stock_server.models)
    tensors = load_file(saved)
    scales = [name for name in tensors if name.endswith(".input_scale")]
    report = entry["outputs"][workflows.QUANTIZE]["graphquant"][0]
    assert len(scales) == report["quantized_layers"] > 20
    without = {name: tensor for name, tensor in tensors.items() if name not in scales}
    save_file(without, stock_server.models / "scale_one.safetensors")

    def stock(file):
        run = stock_server.run(workflows.plain(replace(wide, file=file)))
        return stock_server.latents(run)[workflows.PLAIN]

    calibrated, default = stock("static.safetensors"), stock("scale_one.safetensors")
    print(relative_l2(calibrated, plain), relative_l2(default, plain), relative_l2(ours, plain))
    assert relative_l2(calibrated, plain) < 0.5 * relative_l2(default, plain)
    assert relative_l2(calibrated, ours) < 0.02


def test_static_without_a_calibration_is_refused_in_the_first_line(server):
    with pytest.raises(PromptError) as error:
        server.run(workflows.quantized(FLUX, "fp8-static"))
    first = error.value.details["exception_message"].splitlines()[0]
    assert first.startswith("fp8-static needs the scales of the activations of ")
    assert "Connect Calibrate Activations" in first
