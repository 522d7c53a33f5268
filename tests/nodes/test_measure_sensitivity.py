"""Measure Sensitivity on the real ComfyUI: what a block does to the latent, kept and resumed."""

import json

import pytest
import torch

from lab.nodes.noise import conditioning
from lab.tiny_models import FLUX

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """models/graphquant_sensitivity, empty."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    return tmp_path / "graphquant_sensitivity"


@pytest.fixture
def measure(folder):
    """``measure(model, **inputs)`` -> (sensitivity, report), of one step."""
    from graphquant.nodes.measure_sensitivity import GQMeasureSensitivity

    positive = conditioning(
        0, FLUX.context_width, FLUX.context_length, FLUX.pooled_width, FLUX.guidance
    )
    latent = {"samples": torch.zeros(1, *FLUX.latent)}

    def run(model, **inputs):
        inputs = {"steps": 1, **inputs}
        return GQMeasureSensitivity.execute(model, positive, latent, **inputs).result

    return run


def test_its_panel_names_the_layer_that_matters_most_and_the_file(flux_patcher, folder):
    from graphquant.nodes.measure_sensitivity import GQMeasureSensitivity

    positive = conditioning(
        0, FLUX.context_width, FLUX.context_length, FLUX.pooled_width, FLUX.guidance
    )
    latent = {"samples": torch.zeros(1, *FLUX.latent)}
    output = GQMeasureSensitivity.execute(flux_patcher, positive, latent, steps=1)
    effects = output.result[0].effects
    (line,) = output.ui["graphquant_verdict"]
    (file,) = folder.iterdir()
    assert (line["key"], line["tone"]) == ("sensitivity", "good")
    assert line["values"] == {
        "layers": len(effects),
        "name": max(effects, key=effects.get),
        "effect": f"{max(effects.values()):.4f}",
        "path": f"graphquant_sensitivity/{file.name}",
    }


def test_the_file_is_found_by_quantize_model(flux_patcher, measure, folder):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    measure(flux_patcher)
    (file,) = folder.iterdir()
    assert json.loads(file.read_text())["architecture"] == "flux1"
    size = flux_patcher.model_size() / 2 / 1024**3
    report = GQQuantizeModel.execute(flux_patcher, "fit", size_gib=size).result[1]
    assert f"found in models/graphquant_sensitivity/{file.name}" in report


def test_what_a_cancelled_run_measured_is_not_measured_again(
    flux_patcher, measure, folder, monkeypatch
):
    from comfy.model_management import InterruptProcessingException

    from graphquant.nodes.bridge.measure import sensing

    whole, _ = measure(flux_patcher)
    (file,) = folder.iterdir()
    file.unlink()
    runs, run = [], sensing.Sampling.run

    def counted(self, *arguments):
        runs.append(1)
        if len(runs) == 4:
            raise InterruptProcessingException
        return run(self, *arguments)

    monkeypatch.setattr(sensing.Sampling, "run", counted)
    with pytest.raises(InterruptProcessingException):
        measure(flux_patcher)
    assert [each.suffix for each in folder.iterdir()] == [".partial"]
    assert not any(m._forward_hooks for m in flux_patcher.model.diffusion_model.modules())
    again, report = measure(flux_patcher)
    assert again.effects == whole.effects
    assert "2 of them by an earlier run" in report
    units = int(report.split(" blocks")[0].split()[-1])
    assert len(runs) == 4 + 1 + units - 2
    assert [each.suffix for each in folder.iterdir()] == [".json"]


def test_another_seed_does_not_go_on_with_an_older_run(flux_patcher, measure, folder):
    from graphquant.nodes.bridge.files.sensitivity_folder import PartialRun, file_for
    from graphquant.quant_core.calibration import fingerprint_of

    target = file_for("flux1", fingerprint_of(flux_patcher.model.diffusion_model))
    PartialRun(target, "another").save({"double_blocks.0": {"a": 1.0}})
    _, report = measure(flux_patcher)
    assert "earlier run" not in report


def test_the_model_is_left_as_it_was(flux_patcher, measure, sample):
    before = sample(flux_patcher)
    measure(flux_patcher)
    assert torch.equal(sample(flux_patcher), before)
    assert not any(m._forward_hooks for m in flux_patcher.model.diffusion_model.modules())


def test_a_quantized_model_is_measured_too(flux_patcher, measure):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    plain, _ = measure(flux_patcher)
    int8, _ = measure(GQQuantizeModel.execute(flux_patcher, "int8").result[0])
    assert int8.effects.keys() == plain.effects.keys()
    for name, effect in plain.effects.items():
        assert int8.effects[name] == pytest.approx(effect, rel=0.5), name


@pytest.mark.parametrize("seconds, words", [(0, "0 s"), (99, "99 s"), (600, "10 min")])
def test_time_left_is_said_roughly(seconds, words):
    from graphquant.nodes.bridge.model.progress import in_words

    assert in_words(seconds) == words
