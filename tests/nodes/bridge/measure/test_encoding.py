"""A CLIP that multiplies quantized, and how far its embeddings are from those in full precision."""

import pytest
import torch

from graphquant.quant_core.measure.embedding_error import embedding_error
from lab import tiny_clips
from lab.counting import operations
from lab.dynamic_vram import dynamic_vram
from lab.sampling import relative_l2
from lab.tiny_clips import encode
from lab.tiny_decoders import DECODERS, decoder_clip, song_clip

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.usefixtures("inference_mode")]

DYNAMIC = ["int8-dynamic", "int8-convrot", "w4a8"]
PRODUCT = "aten._int_mm.default"


def execute(clip, method="int8-convrot", compute="quantized", **options):
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder

    return GQQuantizeTextEncoder.execute(clip=clip, method=method, compute=compute, **options)


def part(output, name="t5xxl"):
    return next(each for each in output.ui["graphquant"] if each["part"] == name)


def with_lora(clip):
    from comfy.sd import load_lora_for_models

    return load_lora_for_models(None, clip, tiny_clips.t5_lora(), 0, 1.0)[1]


def products(clip):
    return operations(lambda: encode(clip)).calls[PRODUCT]


@pytest.mark.parametrize("method", DYNAMIC)
def test_every_quantized_layer_multiplies_int8_and_in_full_precision_none_does(clip, method):
    before = encode(clip)
    output = execute(clip, method)
    assert products(output[0]) == part(output)["quantized_layers"] == 12
    assert products(execute(clip, method, "full")[0]) == 0
    assert part(output)["runs_as"] == method
    assert "int8 x int8 matmul" in part(output)["kernel"]
    assert all(map(torch.equal, encode(clip), before))


@pytest.mark.parametrize("method", DYNAMIC)
def test_the_report_has_the_error_that_a_prompt_shows(clip, method):
    from graphquant.nodes.bridge.measure.encoding import PROMPTS

    output = execute(clip, method)
    measured = part(output)["measured"]["embedding"]
    words = slice(0, 30)  # before the padding to 256
    pairs = [(encode(output[0], p)[0][:, words], encode(clip, p)[0][:, words]) for p in PROMPTS]
    seen = embedding_error(pairs)
    assert measured["relative_l2"] == pytest.approx(seen.relative_l2, rel=0.1)
    assert measured["cosine"] == pytest.approx(seen.cosine, abs=1e-3)
    assert f"cosine {measured['cosine']:.4f}" in output[1]
    assert 0.005 < measured["relative_l2"] < (0.2 if method == "w4a8" else 0.02)
    assert not part(output, "clip_l")["measured"]  # it is kept


@pytest.mark.parametrize("name", DECODERS)
def test_language_models_multiply_int8_too(comfy, name):
    clip = decoder_clip(name)
    output = execute(clip)
    quantized = part(output, name)
    assert products(output[0]) == quantized["quantized_layers"] > 20
    assert 0.99 < quantized["measured"]["embedding"]["cosine"] < 1
    error = relative_l2(encode(output[0])[0], encode(clip)[0])
    assert 1e-3 < error < 0.1


@pytest.mark.parametrize("method", ["int8-convrot", "w4a8"])
def test_text_is_generated_with_quantized_products(comfy, method):
    """By what the node Generate Text calls: every token is one row."""
    clip = decoder_clip("qwen3_4b")
    quantized = execute(clip, method)[0]

    def generate(of):
        tokens = of.tokenize("a red fox in the snow")
        return of.generate(tokens, do_sample=False, max_length=6)

    found = []
    count = operations(lambda: found.append(generate(quantized))).calls[PRODUCT]
    assert count == 6 * 28
    assert len(found[0]) == len(generate(clip)) == 6
    if method == "int8-convrot":
        assert found[0] == generate(clip)
    assert generate(quantized) == found[0]


def test_a_language_model_that_no_conditioning_shows_is_measured_on_every_prompt(comfy):
    """ACE-Step's writes the codes of a song."""
    from graphquant.nodes.bridge.measure.encoding import PROMPTS

    output = execute(song_clip())
    for name in ("qwen3_06b", "qwen3_2b"):
        quantized = part(output, name)
        assert quantized["quantized_layers"] == 28
        measured = quantized["measured"]["embedding"]
        words = sum(len(prompt.split()) + 1 for prompt in PROMPTS)
        assert measured["tokens"] == (2 * words if name == "qwen3_06b" else words)  # and lyrics
        assert 0.999 < measured["cosine"] < 1


def test_an_error_that_shows_is_a_warning(clip):
    output = execute(clip, "int2")
    measured = part(output)["measured"]["embedding"]
    assert measured["cosine"] < 0.99
    assert f"cosine to full precision is {measured['cosine']:.4f}, below 0.99" in output[1]
    assert "below 0.99" not in execute(clip)[1]


def test_what_rounds_no_activations_or_gains_no_time_is_said(clip):
    assert "compute has no effect: int8 rounds no activations" in execute(clip, "int8")[1]
    assert (
        "compute gains no time: nvfp4 is multiplied dequantized here" in execute(clip, "nvfp4")[1]
    )
    text = execute(clip, "fp8-dynamic")[1]
    assert "fp8-dynamic needs FP8 matmuls" in text
    for method in ("fp8-static", "fastest"):
        assert f"{method} runs as" in execute(clip, method)[1]


def test_full_is_the_default_and_measures_nothing(clip):
    output = execute(clip, "int8-dynamic", compute="full")
    assert not part(output)["measured"] and "against full precision" not in output[1]
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder

    default = GQQuantizeTextEncoder.execute(clip=clip, method="int8-dynamic")[0]
    assert torch.equal(encode(default)[0], encode(output[0])[0])


def test_auto_is_rotated_where_it_multiplies_quantized(clip):
    output = execute(clip, "auto")
    assert part(output)["method"] == "int8-convrot"
    assert "auto chose int8-convrot" in output[1]


@pytest.mark.parametrize("method", DYNAMIC)
def test_a_lora_after_acts_as_in_full_precision_and_comes_off_bit_exactly(clip, method):
    exact = encode(with_lora(clip))[0] - encode(clip)[0]
    quantized = execute(clip, method)[0]
    before = encode(quantized)[0]
    patched = with_lora(quantized)
    assert products(patched) == 12
    effect = encode(patched)[0] - before
    assert torch.cosine_similarity(effect.flatten(), exact.flatten(), 0) > 0.95
    assert 0.9 < (effect.norm() / exact.norm()).item() < 1.1
    assert torch.equal(encode(quantized)[0], before)


def test_a_lora_before_is_measured_against_the_clip_that_has_it(clip):
    output = execute(with_lora(clip))
    assert part(output)["measured"]["embedding"]["cosine"] > 0.999
    assert relative_l2(encode(output[0])[0], encode(with_lora(clip))[0]) < 0.03


@pytest.mark.parametrize("method", ["int8-dynamic", "int8-convrot"])
def test_dynamic_vram_encodes_what_a_full_load_encodes(clip, method, monkeypatch):
    import comfy.model_management

    comfy.model_management.unload_all_models()  # another test's LoRA may lie in the weights
    patcher_class, calls = dynamic_vram(monkeypatch, 17_000_000)
    staged, patcher = clip.clone(), clip.patcher
    staged.patcher = patcher_class(patcher.model, patcher.load_device, patcher.offload_device)
    quantized = execute(staged, method)[0]
    assert quantized.is_dynamic()
    expected = encode(execute(clip, method)[0])[0]
    assert torch.equal(encode(quantized)[0], expected)
    assert calls["staged"] > 0 and calls["without room"] > 0
    lora = encode(with_lora(execute(clip, method)[0]))[0]
    assert relative_l2(encode(with_lora(quantized))[0], lora) < 1e-6
    assert torch.equal(encode(quantized)[0], expected)


def test_a_partial_load_encodes_what_a_full_load_encodes(clip):
    import comfy.model_management

    quantized = execute(clip, "int8-dynamic")[0]
    full = encode(quantized)[0]
    tokens = quantized.tokenize("a red fox in the snow")
    comfy.model_management.unload_all_models()
    patcher = quantized.patcher
    patcher.load(torch.device("cpu"), lowvram_model_memory=int(patcher.model_size() * 0.5))
    assert torch.equal(quantized.cond_stage_model.encode_token_weights(tokens)[0], full)
    patcher.detach()


def test_the_hooks_that_measure_are_gone_afterwards(clip):
    quantized = execute(clip)[0]
    for each in (clip, quantized):
        assert not any(module._forward_hooks for module in each.cond_stage_model.modules())


def test_cancelling_while_it_measures_leaves_the_clip_as_it_was(clip, monkeypatch):
    import comfy.model_management

    before = encode(clip)

    def cancel():
        raise comfy.model_management.InterruptProcessingException

    from graphquant.nodes.bridge.measure import encoding

    with monkeypatch.context() as patch:
        patch.setattr(encoding.comfy.model_management, "load_models_gpu", lambda *_, **__: cancel())
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            execute(clip)
    assert all(map(torch.equal, encode(clip), before))
    assert not any(module._forward_hooks for module in clip.cond_stage_model.modules())
