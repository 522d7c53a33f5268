"""Calibrate Activations and Quantize Model together, on the trained miniature."""

import pytest
import torch

from graphquant.quant_core.errors import CalibrationError, StorageError
from lab.miniature import CFG
from lab.sampling import relative_l2

pytestmark = pytest.mark.usefixtures("comfy")

DIGITS = "3817"


@pytest.fixture(scope="module")
def model(comfy):
    from lab.miniature.drawing import load_transformer

    return load_transformer()


@pytest.fixture
def calibrate(folders):
    """``calibrate(model, **inputs)`` -> calibration, report; of four steps with CFG."""
    from graphquant.nodes.calibrate_activations import GQCalibrateActivations
    from lab.nodes.classes import class_conditioning

    positive, negative = class_conditioning("0123456789"), class_conditioning("")
    latent = {"samples": torch.zeros(10, 16, 8, 8)}

    def run(model, **inputs):
        inputs = {"steps": 4, "cfg": CFG, "seed": 7, **inputs}
        with torch.inference_mode():
            return GQCalibrateActivations.execute(
                model, positive, latent, negative, **inputs
            ).result

    return run


@pytest.fixture
def folders(tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    return tmp_path


@pytest.fixture
def quantize():
    from graphquant.nodes.quantize_model import GQQuantizeModel

    def run(model, method="int4", **inputs):
        with torch.inference_mode():
            output = GQQuantizeModel.execute(model, method, **inputs)
        return output.result[0], output.ui["graphquant"][0]

    return run


def draw(model):
    from lab.miniature.drawing import sample_digits

    return sample_digits(model, DIGITS, seed=2, steps=4)


@pytest.fixture(scope="module")
def expected(model):
    return draw(model)


@pytest.fixture(scope="module")
def calibration(model):
    from graphquant.nodes.bridge.measure.calibrating import calibrate
    from graphquant.nodes.bridge.measure.sampling import Sampling
    from lab.nodes.classes import class_conditioning

    positive, negative = class_conditioning("0123456789"), class_conditioning("")
    latent = {"samples": torch.zeros(10, 16, 8, 8)}
    with torch.inference_mode():
        run = Sampling(positive, negative, latent, 4, CFG, "euler", "simple")
        return calibrate(model, run, 7, 100.0, 512, 1.0)


@pytest.mark.parametrize("method", ["int4", "w4a8"])
def test_a_calibration_halves_the_latents_error_and_leaves_the_input_alone(
    method, model, expected, calibration, quantize
):
    plain, corrected, compensated = (
        relative_l2(draw(quantize(model, method, **options)[0]), expected)
        for options in (
            {},
            {"calibration": calibration, "rounding": "nearest"},
            {"calibration": calibration},
        )
    )
    assert corrected < plain
    assert compensated < 0.6 * plain
    assert torch.equal(draw(model), expected)


def test_the_panel_gets_both_errors_of_every_layer(model, calibration, quantize):
    _, report = quantize(model, calibration=calibration)
    layers = [layer for layer in report["layers"] if layer["action"] == "quantize"]
    assert all(layer["rounding"]["way"] == "compensated" for layer in layers)
    assert all(
        0 < layer["rounding"]["output_error"] < layer["rounding"]["nearest_error"]
        for layer in layers
    )


def test_a_quantized_copy_is_calibrated_for_the_original(
    model, expected, calibration, calibrate, quantize
):
    copied, _ = quantize(model, "int8")
    theirs, _ = calibrate(copied, rows=512)
    error, own = (
        relative_l2(draw(quantize(model, calibration=each)[0]), expected)
        for each in (theirs, calibration)
    )
    assert error == pytest.approx(own, rel=0.2)


def test_biases_shift_in_the_copy_alone_and_a_lora_comes_off_again(model, calibration, quantize):
    from lab.miniature.drawing import in_italics

    quantized, _ = quantize(model, calibration=calibration)
    layer = "double_blocks.0.img_mlp.0"
    own, copied = (m.model.diffusion_model.get_submodule(layer).bias for m in (model, quantized))
    assert not torch.equal(own, copied)
    before = draw(quantized)
    draw(in_italics(quantized))
    assert torch.equal(draw(quantized), before)


def test_a_file_is_made_once_and_read_the_next_time(model, calibrate, folders, monkeypatch):
    made, report = calibrate(model, file="mini", steps=1)
    assert "- kept in mini.safetensors" in report
    assert (folders / "graphquant_calibrations" / "mini.safetensors").is_file()
    from graphquant.nodes.bridge.measure.sampling import Sampling

    monkeypatch.setattr(Sampling, "run", lambda *_: pytest.fail("sampled"))
    read, report = calibrate(model, file="mini")
    assert "- read from mini.safetensors" in report
    assert read == made
    assert all(torch.equal(read.rows[name], rows) for name, rows in made.rows.items())
    assert read.row_bytes == made.row_bytes


def test_another_models_file_is_refused_in_words(model, calibrate, flux_patcher):
    calibrate(model, file="mini", rows=4, steps=1)
    with pytest.raises(CalibrationError, match="holds the calibration of another model than"):
        calibrate(flux_patcher, file="mini")


@pytest.mark.parametrize("name", ["../mini", "a/b", ".hidden", "a\\b", "C:x"])
def test_a_file_outside_the_folder_is_refused(name, model, calibrate):
    with pytest.raises(ValueError, match="Write a name without a folder"):
        calibrate(model, file=name)


def test_a_damaged_file_is_an_error_that_says_what_to_do(model, calibrate, folders):
    calibrate(model, file="mini", rows=4, steps=1)
    path = folders / "graphquant_calibrations" / "mini.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StorageError, match="Delete it and calibrate again"):
        calibrate(model, file="mini")


def test_what_the_rows_will_take_is_told_before_the_run(model, calibrate, caplog, monkeypatch):
    from graphquant.nodes.bridge.measure.sampling import Sampling

    def run(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Sampling, "run", run)
    caplog.set_level("INFO")
    with pytest.raises(KeyboardInterrupt):
        calibrate(model, rows=2048, memory_gib=0.01)
    (line,) = [r.message for r in caplog.records if r.message.startswith("Calibration keeps")]
    assert "fewer than 2048 to stay within memory_gib: at most 0.01 GiB" in line


def test_cancelling_between_columns_leaves_the_model_as_it_was(
    model, expected, calibration, quantize, monkeypatch
):
    import comfy.model_management

    asked = []

    def interrupted():
        asked.append(1)
        if len(asked) > 60:
            raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(
        comfy.model_management, "throw_exception_if_processing_interrupted", interrupted
    )
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        quantize(model, calibration=calibration)
    monkeypatch.undo()
    assert torch.equal(draw(model), expected)


def test_the_cache_keeps_no_calibrated_weights_and_says_so(model, calibration, quantize, folders):
    """It keeps weights alone; the biases that a calibration corrects would be lost."""
    for _ in range(2):
        _, report = quantize(model, "int8", calibration=calibration, cache=True)
        assert "cache: not used with the rows of a calibration. Save the result." in report["text"]
    assert list(folders.rglob("int8-*.safetensors")) == []
    _, report = quantize(model, "int8", cache=True)
    assert "cache: wrote" in report["text"]


def test_compensated_without_a_calibration_is_an_error(model, quantize):
    with pytest.raises(CalibrationError, match="rounding is compensated, but there is no calib"):
        quantize(model, rounding="compensated")


def test_the_words_of_the_inputs_are_quant_cores():
    from graphquant.nodes.shared.node_inputs import ROUNDINGS, ROWS
    from graphquant.quant_core import rounding
    from graphquant.quant_core.calibration import row_reservoir

    assert (*ROUNDINGS,) == rounding.ROUNDINGS
    assert row_reservoir.ROWS == ROWS
