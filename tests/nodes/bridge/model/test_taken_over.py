"""Encoders that are quantized already keep their codes, and multiply them."""


import pytest
import torch
from safetensors.torch import load_file

from lab.counting import operations
from lab.sampling import relative_l2
from lab.tiny_clips import encode

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.usefixtures("inference_mode")]

PRODUCT = "aten._int_mm.default"
QUANTIZED = 144  # of the 168 layers of a T5 of 24 blocks: the preset keeps wo
LAYER = "t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.v"


def execute(clip, method="int8-convrot", compute="quantized", **options):
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder

    return GQQuantizeTextEncoder.execute(clip=clip, method=method, compute=compute, **options)


@pytest.fixture(scope="module")
def plain(deep_clip_files, load_dual_clip):
    with torch.inference_mode():
        return load_dual_clip(*deep_clip_files)


def quantized_by(clip, method, granularity="per-row"):
    """As the node makes it, without measuring."""
    from graphquant.nodes.bridge.architecture.detected import encoder_preset_name, sub_encoders
    from graphquant.nodes.bridge.model.text_encoders import plan_encoders, quantize_clip
    from graphquant.quant_core.hardware import hardware_of

    encoders = sub_encoders(clip.patcher.model)
    presets = {path: encoder_preset_name(encoder) for path, encoder in encoders.items()}
    hardware = hardware_of("cpu")
    plans = plan_encoders(encoders, method, granularity, presets, hardware=hardware)
    return quantize_clip(clip, plans, device=None)[0]


@pytest.fixture(scope="module")
def stock(plain, tmp_path_factory, load_dual_clip):
    """``stock(method)``: the CLIP as ComfyUI's own loader reads it from a quantized file. No test
    may change it."""
    made = {}

    def make(method, granularity="per-row"):
        from graphquant.nodes.bridge.saving.save_clip import save_quantized_clip

        if (method, granularity) not in made:
            target = tmp_path_factory.mktemp(method) / "flux.safetensors"
            saved = save_quantized_clip(quantized_by(plain, method, granularity), target)
            made[method, granularity] = load_dual_clip(*saved.paths.values())
            made[method, granularity].file = saved.paths["t5xxl.transformer"]
        return made[method, granularity]

    return make


def t5(output):
    return next(each for each in output.ui["graphquant"] if each["part"] == "t5xxl")


def products(clip):
    return operations(lambda: encode(clip)).calls[PRODUCT]


def codes(clip):
    return clip.cond_stage_model.get_submodule(LAYER).weight._qdata


def lora(clip):
    from comfy.sd import load_lora_for_models

    generator = torch.Generator().manual_seed(1)
    up, down = (torch.randn(shape, generator=generator) * 0.1 for shape in ((128, 4), (4, 128)))
    name = f"text_encoders.{LAYER}"
    tensors = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
    return load_lora_for_models(None, clip, tensors, 0, 1.0)[1]


@pytest.mark.parametrize(
    ("method", "granularity", "stored"),
    [
        ("int8", "per-row", "int8 per-row"),
        ("int8", "per-tensor", "int8 per-tensor"),
        ("int8-convrot", "per-row", "rotated by"),
    ],
)
def test_a_quantized_file_is_multiplied_as_it_is(stock, method, granularity, stored):
    source = stock(method, granularity)
    before = encode(source)
    assert products(source) == 0
    output = execute(source, "w4a8")  # what is quantized is not rounded again
    report = t5(output)
    assert report["quantized_layers"] == products(output[0]) == QUANTIZED
    assert torch.equal(codes(output[0]), codes(source))
    assert stored in output[1] and "its codes stay" in output[1]
    markers = source.patcher.model_size() - output[0].patcher.model_size()  # ComfyUI's
    assert markers == report["model_bytes_before"] - report["model_bytes_after"] > 0
    assert markers % QUANTIZED == 0 and markers / QUANTIZED < 80  # a few words of JSON each
    assert 1e-3 < relative_l2(encode(output[0])[0], before[0]) < 0.03
    assert report["measured"]["embedding"]["cosine"] > 0.999
    assert all(map(torch.equal, encode(source), before))


def test_a_clip_of_this_node_is_multiplied_without_rounding_again(plain):
    once = execute(plain, "int8", compute="full")[0]
    twice = execute(once)[0]
    assert torch.equal(codes(twice), codes(once))
    assert products(once) == 0 and products(twice) == QUANTIZED
    assert t5(execute(twice))["measured"]["embedding"]["relative_l2"] == 0


def test_in_full_precision_a_quantized_clip_comes_back_untouched(stock):
    source = stock("int8")
    assert execute(source, compute="full")[0] is source


def test_a_lora_before_stays_beside_the_codes(stock):
    source = stock("int8")
    exact = encode(lora(source))[0] - encode(source)[0]
    bare, patched = (quantized_by(each, "int8-convrot") for each in (source, lora(source)))
    assert torch.equal(codes(patched), codes(source))
    effect = encode(patched)[0] - encode(bare)[0]
    assert torch.cosine_similarity(effect.flatten(), exact.flatten(), 0) > 0.95
    assert 0.9 < (effect.norm() / exact.norm()).item() < 1.1
    assert torch.equal(encode(lora(bare))[0], encode(patched)[0])


def test_what_a_cpu_does_not_multiply_stays(stock):
    source = stock("fp8-weight-only", "per-tensor")
    assert execute(source)[0] is source


def test_what_its_file_wants_in_full_precision_or_a_pattern_excludes_stays(stock, monkeypatch):
    source = stock("int8")
    layer = source.cond_stage_model.get_submodule(LAYER)
    monkeypatch.setattr(layer, "_full_precision_mm_config", True)
    output = execute(source, exclude="block.1")
    reasons = {each["name"]: each["reason"] for each in t5(output)["layers"]}
    name = LAYER.removeprefix("t5xxl.transformer.")
    assert reasons[name] == "already quantized: its file asks for full precision"
    assert "already quantized" in reasons[name.replace("block.0", "block.1")]
    assert products(output[0]) == t5(output)["quantized_layers"] == QUANTIZED - 7


def test_codes_that_are_taken_over_are_saved_as_they_came(stock, tmp_path):
    from graphquant.nodes.bridge.saving.save_clip import save_quantized_clip

    source = stock("int8-convrot")
    again = quantized_by(source, "int8-convrot")
    saved = save_quantized_clip(again, tmp_path / "again.safetensors")
    first, second = map(load_file, (source.file, saved.paths["t5xxl.transformer"]))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", ["nvfp4", "mxfp8", "fp8-weight-only", "plain fp8"])
def test_other_layouts_are_read_as_they_mean(deep_clip_files, stock, kind, load_dual_clip):
    """On a CPU none of them is multiplied, so only the reading is seen."""
    from graphquant.nodes.bridge.tensor.stock_weight import stored_weight

    if kind == "plain fp8":
        source = load_dual_clip(*deep_clip_files, dtype=torch.float8_e4m3fn)
    else:
        source = stock(kind, "per-tensor")
    layer = source.cond_stage_model.get_submodule(LAYER)
    stored = stored_weight(layer)
    plain = kind == "plain fp8"
    expected = layer.weight.detach() if plain else layer.weight.dequantize()
    assert relative_l2(stored.dequantize(torch.float32), expected.float()) < 4e-3
    assert stored.format.dynamic(stored.shape).activations
