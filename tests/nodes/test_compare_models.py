"""Compare Quantized on the real ComfyUI: equal inputs for both, true figures, nothing changed."""

import json

import pytest
import torch

from lab import miniature
from lab.miniature import drawing, workflow
from lab.nodes.classes import class_conditioning
from lab.sampling import relative_l2

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture(scope="module")
def models():
    """The trained miniature, its VAE, and two quantized copies. No test may change them."""
    from graphquant.nodes.quantize_model import GQQuantizeModel

    with torch.inference_mode():
        plain = drawing.load_transformer()
        quantized = {
            method: GQQuantizeModel.execute(plain, method).result[0]
            for method in ("int8", "int4", "int8-convrot", "w6a8", "w4a8")
        }
        twin = drawing.load_transformer()
        return {"bf16": plain, "twin": twin, "vae": drawing.load_vae(), **quantized}


@pytest.fixture
def compare(inference_mode):
    """``compare(reference, quantized, **inputs)`` -> output, and the JSON as values."""
    from graphquant.nodes.compare_models import GQCompareModels

    def run(reference, quantized, **inputs):
        defaults = {
            "positive": class_conditioning("37"),
            "negative": class_conditioning(""),
            "latent_image": {"samples": torch.zeros(2, 16, 8, 8)},
            "seed": 5,
            "steps": 3,
            "cfg": 3.0,
            "sampler_name": "euler",
            "scheduler": "simple",
            "seeds": 1,
        }
        output = GQCompareModels.execute(reference, quantized, **{**defaults, **inputs})
        return output, json.loads(output.result[1])

    return run


def test_a_model_compared_with_itself_has_no_error_at_all(models, compare):
    output, values = compare(models["bf16"], models["twin"], vae=models["vae"])
    (seed,) = values["seeds"]
    assert [call["relative_l2"] for call in seed["calls"]] == [0, 0, 0]
    assert seed["latent"]["relative_l2"] == 0
    assert seed["pictures"] == {"psnr": None, "mae": 0, "ssim": 1, "ms_ssim": None, "lpips": None}
    assert output.result[3] is True


def test_call_errors_are_of_both_models_on_the_reference_s_inputs(models, compare):
    """Recomputed here by hand: the reference's own trajectory, then single calls on it."""
    _, values = compare(models["bf16"], models["int4"], cfg=1.0, steps=2)
    inputs = []

    def watch(apply, arguments):
        inputs.append((arguments["input"].clone(), arguments["timestep"].clone(), arguments["c"]))
        return apply(arguments["input"], arguments["timestep"], **arguments["c"])

    watched = models["bf16"].clone()
    watched.set_model_unet_function_wrapper(watch)
    drawing_inputs = class_conditioning("37")
    import comfy.sample

    empty = torch.zeros(2, 16, 8, 8)
    noise = comfy.sample.prepare_noise(empty, 5)
    comfy.sample.sample(
        watched, noise, 2, 1.0, "euler", "simple", drawing_inputs, drawing_inputs, empty, seed=5
    )
    import comfy.model_management

    for call, (x, timestep, c) in zip(values["seeds"][0]["calls"], inputs, strict=True):
        predicted = []
        for model in (models["int4"], models["bf16"]):
            comfy.model_management.load_models_gpu([model])
            predicted.append(x - model.model.apply_model(x, timestep, **c))
        assert call["sigma"] == timestep[0].item()
        assert call["relative_l2"] == pytest.approx(relative_l2(*predicted), rel=1e-3)


def test_the_latents_and_pictures_are_those_of_two_runs_of_the_sampler(models, compare):
    output, values = compare(models["bf16"], models["int4"], vae=models["vae"], steps=2)
    latents = [
        drawing.sample_digits(models[name], "37", seed=5, steps=2) for name in ("int4", "bf16")
    ]
    latent = values["seeds"][0]["latent"]["relative_l2"]
    assert latent == pytest.approx(relative_l2(*latents), rel=1e-4)
    result, reference = (drawing.decode(models["vae"], latent) for latent in latents)
    image = output.result[2].movedim(-1, 1)
    assert image.shape == (2, 3, 64, 192)
    assert torch.equal(image[..., :64], reference)
    assert torch.equal(image[..., 64:128], result)
    assert torch.equal(image[..., 128:], ((result - reference).abs() * 8).clamp(max=1))
    worst = max((result - reference).abs().flatten(1).mean(1)).item() * 255
    assert values["seeds"][0]["pictures"]["mae"] == pytest.approx(worst, rel=1e-4)


def test_fewer_bits_cost_more_and_fail_first(models, compare):
    eight, four = (
        compare(models["bf16"], models[method], vae=models["vae"], level="strict")[1]
        for method in ("int8", "int4")
    )
    errors = [each["seeds"][0]["calls"][0]["relative_l2"] for each in (eight, four)]
    assert 1e-3 < 3 * errors[0] < errors[1]
    assert eight["passes"] is True
    assert four["seeds"][0]["pictures"]["psnr"] < eight["seeds"][0]["pictures"]["psnr"]


def test_rotated_methods_err_as_their_bits_say(models, compare):
    errors = [
        compare(models["bf16"], models[method])[1]["seeds"][0]["latent"]["relative_l2"]
        for method in ("int8-convrot", "w6a8", "w4a8")
    ]
    assert 1e-3 < errors[0] < errors[1] < errors[2] / 2 < 0.05


def test_each_seed_has_a_row_and_noise_of_its_own(models, compare):
    output, values = compare(models["bf16"], models["int8"], seeds=3, steps=1)
    assert [each["seed"] for each in values["seeds"]] == [5, 6, 7]
    assert len({each["latent"]["relative_l2"] for each in values["seeds"]}) == 3
    text, _, chart, _ = output.result
    assert text.startswith("good: pass; latent relative L2 0.0")
    seeds = [line for line in text.splitlines() if line.startswith("- seed ")]
    assert seeds == ["- seed 5", "- seed 6", "- seed 7"]
    assert chart.shape[0] == 1 and chart.shape[2] > 500  # without a VAE: a bar a call


@pytest.mark.parametrize("sampler", ["euler_ancestral", "heun", "dpmpp_2m_sde"])
def test_samplers_with_noise_or_two_calls_a_step_are_followed_exactly(models, compare, sampler):
    _, values = compare(models["bf16"], models["twin"], sampler_name=sampler)
    calls = values["seeds"][0]["calls"]
    assert len(calls) == (5 if sampler == "heun" else 3)
    assert all(call["relative_l2"] == 0 for call in calls)


def test_no_model_is_changed(models, compare, inference_mode):
    names = ("bf16", "int8")
    before = [drawing.sample_digits(models[name], "37", steps=1) for name in names]
    wrappers = [len(models[name].wrappers) for name in names]
    compare(models["bf16"], models["int8"], steps=1)
    after = [drawing.sample_digits(models[name], "37", steps=1) for name in names]
    assert all(map(torch.equal, before, after))
    assert [len(models[name].wrappers) for name in names] == wrappers


def test_guidance_without_a_negative_is_refused(models, compare):
    with pytest.raises(ValueError, match="cfg is 3, but negative is not connected"):
        compare(models["bf16"], models["int8"], negative=None)


@pytest.mark.parametrize(
    "reference, quantized, said",
    [
        ("bf16", "bf16", "are the same MODEL: nothing would be compared"),
        ("int8", "int8", "are the same MODEL"),
        ("int8", "bf16", "the two are swapped"),
    ],
)
def test_a_comparison_of_nothing_is_refused(models, compare, reference, quantized, said):
    with pytest.raises(ValueError, match=said):
        compare(models[reference], models[quantized])


def test_models_of_two_architectures_are_refused_in_words(models, compare, flux_patcher):
    with pytest.raises(ValueError, match=r"reference is \w+ \(.*\), quantized is Flux \(") as error:
        compare(models["bf16"], flux_patcher)
    assert "can't be compared" in str(error.value)


@pytest.mark.parametrize(
    "reference, quantized, doubt",
    [("bf16", "twin", "Neither MODEL is quantized"), ("int8", "int4", "Both MODELs are quantized")],
)
def test_a_doubtful_comparison_says_so(models, compare, reference, quantized, doubt):
    output, _ = compare(models[reference], models[quantized], steps=1)
    assert f"- {doubt}" in output.result[0]


def test_the_node_carries_its_verdict_and_the_figure(models, compare):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    coarse = GQQuantizeModel.execute(models["bf16"], "int2").result[0]
    cases = ((models["int8"], "verdictPass", "good"), (coarse, "verdictFail", "bad"))
    for model, key, tone in cases:
        output, values = compare(models["bf16"], model, level="strict")
        (found,) = output.ui["graphquant_verdict"]
        worst = values["seeds"][0]["latent"]["relative_l2"]
        assert (found["key"], found["tone"]) == (key, tone)
        assert found["values"] == {"level": "strict", "worst": f"{worst:.4f}"}


def test_lpips_says_what_it_lacks_and_fetches_nothing(models, compare, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    output, _ = compare(models["bf16"], models["int8"], vae=models["vae"], steps=1)
    assert "- LPIPS was not measured: " in output.result[0]
    assert list(tmp_path.rglob("*.pth")) == []


def test_no_seed_of_a_measuring_node_has_a_dice(server):
    for kind in ("GQCompareModels", "GQQuantizationReport", "GQCalibrateActivations"):
        given = server.object_info(kind)["input"]
        _, seed = {**given["required"], **given.get("optional", {})}["seed"]
        assert seed["control_after_generate"] is False, kind


def test_it_runs_over_http_on_the_trained_miniature(server):
    miniature.install(server.models.parent)
    prompt = workflow.draw("5", "int8")
    names = ("load", "vae", "positive", "negative", "empty", workflow.QUANTIZE)
    prompt = {name: prompt[name] for name in names}
    links = {name: [name, 0] for name in ("positive", "negative", "vae")}
    prompt["compare"] = {
        "class_type": "GQCompareModels",
        "inputs": {
            "reference": ["load", 0],
            "quantized": [workflow.QUANTIZE, 0],
            "latent_image": ["empty", 0],
            "seed": 0,
            "steps": 2,
            "cfg": 3.0,
            "sampler_name": "euler",
            "scheduler": "simple",
            "seeds": 2,
            **links,
        },
    }
    outputs = server.run(prompt)["outputs"]["compare"]
    assert outputs["text"][0].startswith("good: pass; latent relative L2 0.0")
    assert len(outputs["images"]) == 2
