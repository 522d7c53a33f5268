"""Quantize Model by size: the true bytes, the notes, the free memory."""

import pytest
import torch

pytestmark = pytest.mark.usefixtures("comfy")

GIB = 1024**3


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """models/graphquant_sensitivity, empty."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    return tmp_path / "graphquant_sensitivity"


@pytest.fixture
def free_memory(monkeypatch):
    """``free_memory(size)``: so many bytes are free from now on."""
    import comfy.model_management

    def give(size):
        monkeypatch.setattr(
            comfy.model_management,
            "get_free_memory",
            lambda device=None, torch_free_too=False: (size, size) if torch_free_too else size,
        )

    return give


@pytest.fixture
def fit(flux_patcher):
    """``fit(share, **inputs)`` -> the node's output for that share of the model's size."""
    from graphquant.nodes.quantize_model import GQQuantizeModel

    def run(share, model=flux_patcher, **inputs):
        size = model.model_size() * share / GIB
        return GQQuantizeModel.execute(model, "fit", size_gib=size, **inputs)

    return run


@pytest.fixture
def sensitivity(flux_patcher):
    from graphquant.nodes.bridge.measure.sensing import layers_to_measure
    from graphquant.quant_core.calibration import fingerprint_of
    from graphquant.quant_core.fit import Sensitivity

    names = list(layers_to_measure(flux_patcher))
    effects = {name: 0.1 / (1 + number) for number, name in enumerate(names)}
    model = fingerprint_of(flux_patcher.model.diffusion_model)
    return Sensitivity("flux1", model, "int4-symmetric", effects)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_model_size_is_never_over_the_size_and_the_model_samples(
    flux_patcher, fit, sensitivity, share, sample
):
    quantized, report, chart = fit(share, sensitivity=sensitivity).result
    assert quantized.model_size() <= flux_patcher.model_size() * share
    assert quantized.model_size() > 0.9 * flux_patcher.model_size() * share
    assert torch.isfinite(sample(quantized)).all()
    assert "predicted error of the final latent" in report
    assert chart.shape == (1, 540, 960, 3) and chart.std() > 0.05


def test_without_measurements_the_report_says_what_they_would_gain(fit):
    report = fit(0.4).result[1]
    assert "no layer of this architecture was measured" in report
    assert "one run of the sampler for each block" in report


def test_size_0_takes_what_is_free_and_says_how_it_counted(
    flux_patcher, fit, free_memory, monkeypatch
):
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "minimum_inference_memory", lambda: 0)
    monkeypatch.setattr(flux_patcher, "memory_required", lambda shape: 3000)
    free = flux_patcher.model_size() // 2
    free_memory(free)
    quantized, report, _ = fit(0).result
    assert 0.8 * (free - 3000) < quantized.model_size() <= free - 3000
    assert "size_gib is 0: " in report and "are free on cpu, less" in report


def test_without_free_memory_it_is_refused(fit, free_memory):
    from graphquant.quant_core import FitError

    free_memory(10)
    with pytest.raises(FitError, match="means what is free, but nothing is"):
        fit(0)


def test_too_small_a_size_names_the_smallest(fit):
    from graphquant.quant_core import FitError

    with pytest.raises(FitError, match="the smallest possible size is"):
        fit(0.01)


def test_a_sibling_s_sensitivity_is_taken_with_a_note(flux_patcher, fit, sensitivity):
    flux_patcher.model.diffusion_model.img_in.bias.data.fill_(9.0)
    assert "measured on a sibling" in fit(0.4, sensitivity=sensitivity).result[1]


def test_another_architecture_s_is_refused(fit, sensitivity):
    from dataclasses import replace

    from graphquant.quant_core import FitError

    other = replace(sensitivity, model=replace(sensitivity.model, layers="0" * 16))
    with pytest.raises(FitError, match="The sensitivity is of another architecture, flux1"):
        fit(0.4, sensitivity=other)


def test_other_methods_have_a_chart_that_says_so(flux_patcher):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    chart = GQQuantizeModel.execute(flux_patcher, "int8").result[2]
    assert chart.shape[0] == 1 and chart.shape[3] == 3


def test_stock_only_layers_have_stock_s_formats(fit, sensitivity):
    from graphquant.quant_core.storage import stock_marker

    quantized = fit(0.4, sensitivity=sensitivity, stock_only=True).result[0]
    weights = [m.weight for m in quantized.model.diffusion_model.modules() if hasattr(m, "weight")]
    formats = {w.quantized_weight().format for w in weights if hasattr(w, "quantized_weight")}
    assert all(stock_marker(each) for each in formats)


@pytest.mark.parametrize("share", [0.945, 0.97])
def test_all_encoders_of_a_clip_share_one_size(clip, share):
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder
    from lab.tiny_clips import encode

    size = clip.patcher.model_size() * share
    with torch.inference_mode():
        output = GQQuantizeTextEncoder.execute(clip, "fit", size_gib=size / GIB)
        quantized, report = output.result
        assert 0.98 * size < quantized.patcher.model_size() <= size
        assert "an encoder is not measured" in report
        encoded = encode(quantized)
    assert torch.isfinite(encoded[0][0]).all()


def test_too_small_a_size_for_encoders_names_the_smallest(clip):
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder
    from graphquant.quant_core import FitError

    with pytest.raises(FitError, match="the smallest possible size is"):
        GQQuantizeTextEncoder.execute(clip, "fit", size_gib=1e-6)


def test_a_new_sensitivity_file_runs_the_node_again(folder):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    before = GQQuantizeModel.fingerprint_inputs(method="fit")
    folder.mkdir()
    (folder / "new.json").write_text("{}")
    assert GQQuantizeModel.fingerprint_inputs(method="fit") != before
    assert GQQuantizeModel.fingerprint_inputs(method="int8") == 0


@pytest.mark.parametrize("inputs", [{"size_gib": 1.0}, {"stock_only": True}], ids=str)
def test_a_size_for_another_method_is_warned_of(flux_patcher, inputs):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    report = GQQuantizeModel.execute(flux_patcher, "int8", **inputs).result[1]
    assert "have no effect on int8. Choose the method fit." in report
    assert "no effect" not in GQQuantizeModel.execute(flux_patcher, "int8").result[1]


@pytest.mark.parametrize("size", [float("nan"), float("inf"), -1.0, "2"])
def test_a_size_that_is_not_a_number_is_an_error_that_names_the_input(flux_patcher, clip, size):
    from graphquant.nodes.quantize_model import GQQuantizeModel
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder
    from graphquant.quant_core.errors import FitError

    with pytest.raises(FitError, match=rf"^size_gib is {size!r}\. Give a number"):
        GQQuantizeModel.execute(flux_patcher, "fit", size_gib=size)
    with pytest.raises(FitError, match=rf"^size_gib is {size!r}\. Give a number"):
        GQQuantizeTextEncoder.execute(clip, "fit", size_gib=size)
