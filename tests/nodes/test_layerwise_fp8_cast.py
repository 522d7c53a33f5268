"""Layerwise Cast on the real ComfyUI: as a class, on its layer classes, and over HTTP."""

import pytest
import torch

from lab import workflows
from lab.sampling import relative_l2
from lab.tiny_models import FLUX

pytestmark = pytest.mark.usefixtures("comfy")

STORAGE = {"float8_e4m3fn": 0.05, "float8_e5m2": 0.10}  # relative L2 of the latent after 4 steps


@pytest.fixture
def cast():
    from graphquant.nodes.layerwise_fp8_cast import GQLayerwiseFP8Cast

    return lambda model, storage_dtype="float8_e4m3fn", **options: GQLayerwiseFP8Cast.execute(
        model=model, storage_dtype=storage_dtype, **options
    )


def report_of(output):
    return output.ui["graphquant"][0]


def layer(patcher, name):
    return patcher.model.diffusion_model.get_submodule(name)


@pytest.mark.parametrize("storage", STORAGE)
def test_the_result_samples_within_its_bound_and_the_input_is_untouched(
    flux_patcher, sample, cast, storage
):
    reference = sample(flux_patcher)
    output = cast(flux_patcher, storage)
    assert 1e-3 < relative_l2(sample(output[0]), reference) <= STORAGE[storage]
    assert torch.equal(sample(flux_patcher), reference)
    report = report_of(output)
    assert (report["method"], report["quantized_layers"]) == ("layerwise-fp8", 42)
    assert report["kernel"] == "dequantize + matmul"
    assert output[1].startswith("layerwise-fp8: 42 of 42 layers quantized")


def test_report_patcher_and_tensors_agree_on_the_bytes(flux_patcher, cast):
    output = cast(flux_patcher)
    report = report_of(output)
    assert report["model_bytes_after"] == output[0].model_size()
    weights = report["quantized_elements"] + 4 * report["quantized_layers"]
    assert report["quantized_bytes_after"] == weights
    saved = report["quantized_bytes_before"] - weights
    markers = report["model_bytes_after"] - (report["model_bytes_before"] - saved)
    assert 0 <= markers < 100 * report["quantized_layers"]


def test_footprints_are_ordered_as_the_dtypes_say(tiny_flux_file, inference_mode, cast):
    import comfy.sd

    def load(dtype):
        return comfy.sd.load_diffusion_model(str(tiny_flux_file), model_options={"dtype": dtype})

    float32, bfloat16 = load(torch.float32), load(torch.bfloat16)
    sizes = [cast(bfloat16)[0].model_size(), cast(float32)[0].model_size(), float32.model_size()]
    assert sizes == sorted(sizes) and len(set(sizes)) == 3
    assert sizes[0] < 0.55 * bfloat16.model_size()


def test_norms_and_biases_are_untouched_bit_for_bit(wan_patcher, cast):
    result = cast(wan_patcher)[0]
    before = dict(wan_patcher.model.diffusion_model.named_parameters())
    after = dict(result.model.diffusion_model.named_parameters())
    others = [n for n in before if "norm" in n or n.endswith("bias") or "modulation" in n]
    assert len(others) > 20
    assert all(torch.equal(after[name], before[name]) for name in others)


def test_the_default_patterns_keep_the_patch_embedding(wan_patcher, sample, cast):
    reference = sample(wan_patcher)
    kept = report_of(cast(wan_patcher))["layers"]
    assert [la["name"] for la in kept if la["action"] == "keep"] == ["patch_embedding"]
    everything = cast(wan_patcher, skip_patterns="")
    assert report_of(everything)["quantized_layers"] == len(kept) == 27
    assert layer(everything[0], "patch_embedding").weight._qdata.dtype == torch.float8_e4m3fn
    assert 1e-3 < relative_l2(sample(everything[0]), reference) <= 0.05


def test_a_class_and_a_pattern_skip_what_is_below(flux_patcher, cast):
    by_class = report_of(cast(flux_patcher, skip_classes="DoubleStreamBlock\nMLPEmbedder"))
    by_pattern = report_of(cast(flux_patcher, skip_patterns="double_blocks\\.[0-9]$\n_in$"))
    for report, reason in ((by_class, "skip class Double"), (by_pattern, "skip pattern double")):
        kept = {la["name"]: la["reason"] for la in report["layers"] if la["action"] == "keep"}
        assert kept["double_blocks.1.img_mlp.0"].startswith(reason)


@pytest.mark.parametrize(("scaled", "expected"), [(True, 0.0265), (False, 0.282)])
def test_small_weights_survive_scaled_and_not_unscaled(flux_patcher, cast, scaled, expected):
    plain = layer(flux_patcher, "single_blocks.0.linear1").weight
    plain.data.normal_(0, 0.002, generator=torch.Generator().manual_seed(0))
    weight = layer(cast(flux_patcher, scaled=scaled)[0], "single_blocks.0.linear1").weight
    assert relative_l2(weight.dequantize(), plain) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_model_computes_in_the_chosen_dtype(flux_patcher, sample, cast, dtype):
    reference = sample(flux_patcher)
    result = cast(flux_patcher, compute_dtype=dtype)[0]
    seen = set()
    hook = layer(result, "single_blocks.0.linear1").register_forward_hook(
        lambda module, inputs, output: seen.add(output.dtype)
    )
    latent = sample(result)
    hook.remove()
    assert seen == {getattr(torch, dtype)}
    # bfloat16 alone moves this tiny model by 0.14; float16 and float32 hardly
    assert 1e-3 < relative_l2(latent, reference) <= (0.2 if dtype == "bfloat16" else 0.05)
    assert torch.equal(sample(flux_patcher), reference)


def test_a_lora_comes_and_goes_bit_exactly(flux_patcher, sample, cast):
    result = cast(flux_patcher)[0]
    before = sample(result)
    key = "diffusion_model.single_blocks.0.linear1.weight"
    weight = layer(flux_patcher, "single_blocks.0.linear1").weight
    delta = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 0.05
    patched = result.clone()
    assert patched.add_patches({key: ("diff", (delta,))}, 1.0) == [key]
    assert relative_l2(sample(patched), before) > 1e-3
    assert torch.equal(sample(result), before)


LAYERS = {
    "Linear": (dict(in_features=16, out_features=24), (4, 16)),
    "Conv1d": (dict(in_channels=16, out_channels=24, kernel_size=3), (2, 16, 9)),
    "Conv2d": (dict(in_channels=16, out_channels=24, kernel_size=3), (2, 16, 9, 9)),
    "Conv3d": (dict(in_channels=16, out_channels=24, kernel_size=3), (2, 16, 5, 5, 5)),
    "ConvTranspose1d": (dict(in_channels=16, out_channels=24, kernel_size=3), (2, 16, 9)),
    "ConvTranspose2d": (dict(in_channels=16, out_channels=24, kernel_size=3), (2, 16, 9, 9)),
    "ConvTranspose3d": (dict(in_channels=16, out_channels=24, kernel_size=3), (2, 16, 5, 5, 5)),
    "Embedding": (dict(num_embeddings=16, embedding_dim=24), None),
}


@pytest.mark.parametrize("family", ["disable_weight_init", "manual_cast", "torch"])
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("inference_mode")
def test_each_layer_class_computes_with_its_dequantized_weight(family, kind, dtype):
    import comfy.ops

    from graphquant.nodes.bridge.tensor.quantized_layer import quantize_layer
    from graphquant.quant_core.formats import CastFloat8

    source = torch.nn if family == "torch" else getattr(comfy.ops, family)
    if not hasattr(source, kind):
        source = torch.nn  # ComfyUI has no ConvTranspose3d of its own; models take torch's
    options, shape = LAYERS[kind]
    module = getattr(source, kind)(**options).to(dtype)
    for parameter in module.parameters():
        parameter.data.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.arange(16) if shape is None else torch.randn(shape).to(dtype)
    stored = CastFloat8().quantize(module.weight)
    module.weight.data = stored.dequantize()
    expected = module(x)
    quantize_layer(module, stored, dtype)
    assert torch.equal(module(x), expected)


def test_a_convolution_is_saved_under_no_stock_marker(wan_patcher, cast, tmp_path):
    from safetensors.torch import load_file

    from graphquant.nodes.bridge.saving.save_model import save_quantized_model

    save_quantized_model(cast(wan_patcher, skip_patterns="")[0], tmp_path / "saved.safetensors")
    keys = load_file(tmp_path / "saved.safetensors").keys()
    assert "graphquant.patch_embedding.graphquant" in keys
    assert not any(key.endswith("comfy_quant") for key in keys)


@pytest.mark.parametrize("options", [{}, {"scaled": False}])
def test_saved_it_samples_the_same_in_a_comfyui_without_this_pack(
    flux_patcher, sample, cast, tmp_path, options
):
    import comfy.sd

    from graphquant.nodes.bridge.saving.save_model import save_quantized_model

    result = cast(flux_patcher, "float8_e5m2", **options)[0]
    expected = sample(result, steps=1)
    file = tmp_path / "saved.safetensors"
    save_quantized_model(result, file)
    stock = comfy.sd.load_diffusion_model(str(file))
    assert torch.equal(sample(stock, steps=1), expected)
    assert "graphquant" not in str(type(layer(stock, "single_blocks.0.linear1")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"storage_dtype": "float8"}, "Unknown storage dtype 'float8'. Did you mean float8_e"),
        ({"compute_dtype": "bf16"}, "Unknown compute dtype 'bf16'."),
        ({"skip_patterns": "("}, "Skip pattern '(' is not a valid regular expression"),
        ({"skip_classes": "Flux"}, "No layer is left to quantize: 42 of 42 are kept"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_input_is_refused_in_the_first_line(flux_patcher, cast, options, message):
    with pytest.raises(ValueError) as error:
        cast(flux_patcher, **options)
    assert str(error.value).splitlines()[0].startswith(message)


def test_a_cast_model_comes_back_itself(flux_patcher, cast):
    once = cast(flux_patcher)[0]
    again = cast(once, "float8_e5m2", compute_dtype="float16")
    assert again[0] is once
    assert report_of(again)["method"] == "already_quantized"
    assert "compute_dtype is not set: nothing was cast." in again[1]


def test_it_runs_over_http_beside_the_plain_branch(server):
    prompt = workflows.both(FLUX, "none", seed=5)
    prompt[workflows.QUANTIZE] = {
        "class_type": "GQLayerwiseFP8Cast",
        "inputs": {"model": ["load", 0], "storage_dtype": "float8_e4m3fn"},
    }
    entry = server.run(prompt)
    latents = server.latents(entry)
    report = entry["outputs"][workflows.QUANTIZE]["graphquant"][0]
    assert report["quantized_layers"] == 42
    error = relative_l2(latents[workflows.QUANTIZED], latents[workflows.PLAIN])
    assert 1e-3 < error <= STORAGE["float8_e4m3fn"]


def test_every_input_but_the_first_two_is_optional_and_has_a_tooltip(server):
    inputs = server.object_info("GQLayerwiseFP8Cast")["input"]
    assert list(inputs["required"]) == ["model", "storage_dtype"]
    assert list(inputs["optional"]) == ["compute_dtype", "scaled", "skip_patterns", "skip_classes"]
    described = {**inputs["required"], **inputs["optional"]}
    assert all(options["tooltip"] for _, options in described.values())
