"""A CLIP with quantized encoders survives what ComfyUI does to CLIPs."""

import pytest
import torch

from graphquant.quant_core import METHODS
from graphquant.quant_core.methods import named_method
from lab import tiny_clips
from lab.architectures.encoders import text_encoder
from lab.sampling import relative_l2
from lab.tiny_clips import LORA_LAYER, encode

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.usefixtures("inference_mode")]

QUANTIZED = ["fp8-weight-only", "int8", "int4"]
INT8_BOUND = 0.015


def quantize(clip, method="int8"):
    """(CLIP, {path: Report})"""
    from graphquant.nodes.bridge.architecture.detected import encoder_preset_name, sub_encoders
    from graphquant.nodes.bridge.model.text_encoders import plan_encoders, quantize_clip

    encoders = sub_encoders(clip.patcher.model)
    presets = {path: encoder_preset_name(encoder) for path, encoder in encoders.items()}
    return quantize_clip(clip, plan_encoders(encoders, method, "per-row", presets), device=None)


def with_lora(clip):
    """By the function behind the stock LoraLoader."""
    from comfy.sd import load_lora_for_models

    patched = load_lora_for_models(None, clip, tiny_clips.t5_lora(), 0, 1.0)[1]
    assert list(patched.patcher.patches) == [f"{LORA_LAYER}.weight"]
    return patched


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
def test_no_method_quantizes_an_encoder_s_activations(method):
    from graphquant.nodes.bridge.model.text_encoders import weight_only

    chosen = named_method(weight_only(method)).method.choose((256, 256), "per-row").format
    assert getattr(chosen, "activations", None) is None


def test_bytes_are_those_of_each_encoder_and_of_the_whole(clip):
    from comfy.model_management import module_size

    quantized, reports = quantize(clip)
    for path, report in reports.items():
        assert report.model_bytes_before == module_size(clip.patcher.model.get_submodule(path))
        after = module_size(quantized.patcher.model.get_submodule(path))
        assert report.model_bytes_after == after, path
    assert quantized.patcher.model_size() == module_size(quantized.cond_stage_model)
    saved = clip.patcher.model_size() - quantized.patcher.model_size()
    t5 = reports["t5xxl.transformer"]
    assert saved == t5.model_bytes_before - t5.model_bytes_after
    assert saved == t5.quantized_bytes_before - t5.quantized_bytes_after
    assert t5.quantized_bytes_after <= 0.51 * t5.quantized_bytes_before  # float16 before


def test_the_clip_goes_along_with_all_that_was_set_on_it(clip):
    changed = clip.clone()
    changed.clip_layer(-2)
    changed.use_clip_schedule = True
    changed.apply_hooks_to_conds = "hooks"
    changed.set_tokenizer_option("min_length", 12)
    quantized = quantize(changed)[0]
    assert (quantized.layer_idx, quantized.use_clip_schedule) == (-2, True)
    assert quantized.apply_hooks_to_conds == "hooks"
    assert quantized.tokenizer_options == {"min_length": 12}
    assert quantized.tokenizer is clip.tokenizer
    assert quantized.patcher.model is quantized.cond_stage_model is not clip.cond_stage_model
    assert quantized.patcher.is_clip
    assert clip.layer_idx is None


def test_a_set_clip_layer_still_takes_effect(clip):
    changed = clip.clone()
    changed.clip_layer(-2)
    expected = encode(changed)[0]
    assert relative_l2(encode(quantize(changed)[0])[0], expected) <= INT8_BOUND
    assert relative_l2(encode(clip)[0], expected) > 0.1


def test_unload_and_reload_is_bit_equal(clip):
    import comfy.model_management

    quantized = quantize(clip)[0]
    before = encode(quantized)
    comfy.model_management.unload_all_models()
    assert all(map(torch.equal, encode(quantized), before))


@pytest.mark.parametrize("method", QUANTIZED)
def test_a_partial_load_encodes_what_a_full_load_encodes(clip, method):
    import comfy.model_management

    quantized = quantize(clip, method)[0]
    tokens = quantized.tokenize("a red fox in the snow")
    full = encode(quantized)[0]
    comfy.model_management.unload_all_models()
    patcher, model = quantized.patcher, quantized.cond_stage_model
    waiting = []
    for share in (0.02, 0.5, 0.9):
        patcher.load(torch.device("cpu"), lowvram_model_memory=int(patcher.model_size() * share))
        layers = [m for m in model.modules() if type(m).__name__ == "QuantizedLinear"]
        waiting.append(sum(not getattr(m, "comfy_patched_weights", False) for m in layers))
        assert torch.equal(model.encode_token_weights(tokens)[0], full), share
        patcher.detach()
    assert waiting[0] > 0


@pytest.mark.parametrize("method", QUANTIZED)
def test_a_lora_after_quantizing_acts_and_comes_off_bit_exactly(clip, method):
    exact = encode(with_lora(clip))[0] - encode(clip)[0]
    quantized = quantize(clip, method)[0]
    before = encode(quantized)[0]
    effect = encode(with_lora(quantized))[0] - before
    assert torch.cosine_similarity(effect.flatten(), exact.flatten(), 0) > 0.95
    assert 0.9 < (effect.norm() / exact.norm()).item() < 1.1
    assert torch.equal(encode(quantized)[0], before)


def test_a_lora_before_quantizing_is_rounded_once_with_the_weight(clip):
    import comfy.lora

    patched = with_lora(clip)
    quantized = quantize(patched)[0]
    assert quantized.patcher.patches == {}
    weight = clip.cond_stage_model.get_submodule(LORA_LAYER).weight.float()
    key = f"{LORA_LAYER}.weight"
    exact = comfy.lora.calculate_weight(patched.patcher.patches[key], weight.clone(), key)
    baked = quantized.cond_stage_model.get_submodule(LORA_LAYER).weight.dequantize()
    assert relative_l2(baked, exact) < 0.01 < relative_l2(weight, exact)
    assert relative_l2(encode(quantized)[0], encode(patched)[0]) <= INT8_BOUND


def test_a_lora_on_a_kept_encoder_stays_pending(clip):
    key = "clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
    patched = clip.clone()
    patched.add_patches({key: ("diff", (torch.ones(128, 64),))})
    quantized = quantize(patched)[0]
    assert list(quantized.patcher.patches) == [key]
    assert torch.equal(encode(quantized)[1], encode(patched)[1])


def test_a_lora_hook_on_a_quantized_clip_acts_and_leaves_nothing_behind(clip):
    import comfy.hooks
    from comfy_extras.nodes_hooks import SetClipHooks

    def hooked(target):
        hooks = comfy.hooks.create_hook_lora(tiny_clips.t5_lora(), 0.0, 1.0)
        options = {"schedule_clip": True, "apply_to_conds": True, "hooks": hooks}
        with_hooks = SetClipHooks().apply_hooks(target, **options)[0]
        tokens = with_hooks.tokenize("a red fox in the snow")
        return with_hooks.encode_from_tokens_scheduled(tokens, show_pbar=False)[0][0]

    quantized = quantize(clip)[0]
    before = encode(quantized)[0]
    effect = hooked(quantized) - before
    exact = hooked(clip) - encode(clip)[0]
    assert torch.cosine_similarity(effect.flatten(), exact.flatten(), 0) > 0.95
    assert torch.equal(encode(quantized)[0], before)


def test_cancelling_leaves_the_clip_as_it_was(clip, monkeypatch):
    import comfy.model_management

    before = encode(clip)
    calls = []

    def cancel():
        calls.append(1)
        if len(calls) == 3:
            raise comfy.model_management.InterruptProcessingException

    with monkeypatch.context() as patch:
        patch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", cancel)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            quantize(clip)
    assert all(map(torch.equal, encode(clip), before))


@pytest.mark.parametrize("method", ["int8", "fp8-weight-only", "int4", "nf4"])
def test_clip_save_writes_plain_encoders_with_the_lora(clip, tmp_path, method):
    from comfy_extras.nodes_model_merging import CLIPSave

    from lab.nodes.clip import load_dual_clip

    quantized = with_lora(quantize(clip, method)[0])
    expected = encode(quantized)[0]
    assert relative_l2(encode(quantize(clip, method)[0])[0], expected) > 0.01  # the LoRA counts
    node = CLIPSave()
    node.output_dir = str(tmp_path)
    node.save(quantized, "saved")
    files = [next(tmp_path.glob(f"saved_{name}_*")) for name in ("clip_l", "t5xxl")]
    assert relative_l2(encode(load_dual_clip(*files))[0], expected) < 2e-3


def test_every_byte_of_an_encoder_is_in_its_plan(clip):
    _, reports = quantize(clip)
    for report in reports.values():
        unsaved = sum(
            each.bytes
            for each in report.plan.remainder
            if each.reason == "no part of the state dict"
        )
        assert report.plan.bytes_before - unsaved == report.model_bytes_before
        assert report.plan.bytes_after - unsaved == report.model_bytes_after


@pytest.mark.parametrize("family", ["ltx2", "sd3", "flux1", "hidream", "stable_audio_3"])
def test_what_lies_beside_the_encoders_is_in_their_plans(family):
    """LTX-2's text_embedding_projection takes 1.35 GiB of 24."""
    from comfy.model_management import module_size

    from graphquant.nodes.bridge.architecture.detected import sub_encoders
    from graphquant.nodes.bridge.model.text_encoders import plan_encoders, with_what_is_beside

    model = text_encoder(family)
    encoders = sub_encoders(model)
    plans = plan_encoders(encoders, "int8", "per-row", dict.fromkeys(encoders, "generic"))
    plans = with_what_is_beside(plans, model)
    assert sum(plan.bytes_before for plan in plans.values()) == module_size(model)
    beside = [name for plan in plans.values() for each in plan.remainder for name in each.names]
    assert any("text_embedding_projection" in name for name in beside) == (family == "ltx2")
