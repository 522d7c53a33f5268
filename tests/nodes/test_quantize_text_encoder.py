"""Quantize Text Encoder, run as a class on ComfyUI's own encoders, without a server."""

import copy

import pytest
import torch

from graphquant.quant_core import (
    METHODS,
    NothingToQuantizeError,
    PatternError,
    UnknownNameError,
)
from lab import tiny_clips

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.usefixtures("inference_mode")]

# method: relative L2 of the encoded prompt, of the tiny T5 and the tiny Qwen alike.
BOUNDS = {"fp8-weight-only": 0.06, "int8": 0.015, "int4": 0.2}
LORA_LAYER = "t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.v"


@pytest.fixture(scope="module")
def files(comfy, tmp_path_factory):
    return tiny_clips.dual_clip_files(tmp_path_factory.mktemp("text_encoders"))


@pytest.fixture(scope="module")
def clip(files):
    """One dual CLIP for all tests: none may change it."""
    from lab.nodes.clip import load_dual_clip

    with torch.inference_mode():
        return load_dual_clip(*files)


@pytest.fixture(scope="module")
def qwen(comfy):
    with torch.inference_mode():
        return tiny_clips.qwen_clip()


@pytest.fixture
def execute():
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder

    return lambda clip, method="int8", **options: GQQuantizeTextEncoder.execute(
        clip=clip, method=method, **options
    )


def encode(clip, text="a red fox in the snow"):
    """(conditioning [1, tokens, width], pooled output [1, width] or None)."""
    return clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)


def parts_of(output):
    return {part["part"]: part for part in output.ui["graphquant"]}


def counts_of(parts):
    """Preset, quantized layers and all layers of each encoder."""
    keys = ("preset", "quantized_layers", "total_layers")
    return {name: tuple(part[key] for key in keys) for name, part in parts.items()}


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def lora(clip, rank=4):
    """A LoRA file's content, for one layer of the T5."""
    generator = torch.Generator().manual_seed(1)
    n, k = clip.cond_stage_model.get_submodule(LORA_LAYER).weight.shape
    name = f"text_encoders.{LORA_LAYER}"
    return {
        f"{name}.lora_up.weight": torch.randn(n, rank, generator=generator) * 0.1,
        f"{name}.lora_down.weight": torch.randn(rank, k, generator=generator) * 0.1,
    }


def with_lora(clip):
    """By the function behind the stock LoraLoader."""
    from comfy.sd import load_lora_for_models

    patched = load_lora_for_models(None, clip, lora(clip), 0, 1.0)[1]
    assert list(patched.patcher.patches) == [f"{LORA_LAYER}.weight"]
    return patched


@pytest.mark.parametrize("method", BOUNDS)
def test_the_prompt_is_encoded_within_bounds_and_the_input_stays_bit_identical(
    clip, execute, method
):
    before = encode(clip)
    after = encode(execute(clip, method)[0])
    assert 1e-4 < relative(after[0], before[0]) <= BOUNDS[method]
    assert torch.equal(after[1], before[1])  # CLIP-L's pooled output: it is kept
    again = encode(clip)
    assert all(map(torch.equal, again, before))


@pytest.mark.parametrize("method", BOUNDS)
def test_a_decoder_as_encoder_is_within_the_same_bounds(qwen, execute, method):
    before = encode(qwen)[0]
    output = execute(qwen, method)
    assert 1e-4 < relative(encode(output[0])[0], before) <= BOUNDS[method]
    assert counts_of(parts_of(output)) == {"qwen3_4b": ("qwen", 28, 28)}
    assert torch.equal(encode(qwen)[0], before)


def test_auto_is_int8_on_every_machine(clip, execute):
    output = execute(clip, "auto")
    part = parts_of(output)["t5xxl"]
    assert part["method"] == "int8"
    assert "auto chose int8" in part["warnings"][0]
    assert torch.equal(encode(output[0])[0], encode(execute(clip, "int8")[0])[0])


@pytest.mark.parametrize(
    ("method", "counterpart"), [("fp8-dynamic", "fp8-weight-only"), ("int8-dynamic", "int8")]
)
def test_a_dynamic_method_runs_as_its_weight_only_counterpart_and_says_so(
    clip, execute, method, counterpart
):
    output = execute(clip, method)
    part = parts_of(output)["t5xxl"]
    assert (part["method"], part["runs_as"]) == (method, counterpart)
    assert part["kernel"] == "dequantize + matmul"
    assert f"{method} runs as {counterpart}" in output[1]
    assert torch.equal(encode(output[0])[0], encode(execute(clip, counterpart)[0])[0])


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
def test_no_method_quantizes_an_encoder_s_activations(method):
    from graphquant.nodes.patching.encoders import weight_only

    chosen = METHODS[weight_only(method)].choose((256, 256), "per-row").format
    assert getattr(chosen, "activations", None) is None


def test_each_encoder_of_a_dual_clip_is_planned_and_reported_on_its_own(clip, execute):
    output = execute(clip)
    parts = parts_of(output)
    assert counts_of(parts) == {
        "clip_l": ("clip", 0, 13),
        "t5xxl": ("t5", 12, 14),
    }
    kept = {la["name"]: la["reason"] for la in parts["t5xxl"]["layers"] if la["action"] == "keep"}
    assert kept == {
        f"encoder.block.{i}.layer.1.DenseReluDense.wo": "preset t5 keeps wo" for i in range(2)
    }
    clip_l, t5 = output[1].split("## t5xxl")
    assert "## clip_l" in clip_l
    assert "kept: 13 x preset clip keeps *" in clip_l
    assert "saves memory, not time" in t5 and "saves memory" not in clip_l


def test_each_encoder_of_a_quadruple_clip_has_its_own_preset(comfy, execute):
    clip = tiny_clips.quadruple_clip()
    before = encode(clip)
    output = execute(clip)
    parts = parts_of(output)
    assert counts_of(parts) == {
        "clip_l": ("clip", 0, 13),
        "clip_g": ("clip", 0, 187),
        "t5xxl": ("t5", 144, 168),
        "llama": ("llama", 28, 28),
    }
    after = encode(output[0])
    assert 1e-4 < relative(after[0], before[0]) <= 0.03
    assert torch.equal(after[1], before[1])


def test_bytes_are_those_of_each_encoder_and_of_the_whole(clip, execute):
    from comfy.model_management import module_size

    output = execute(clip)
    quantized, parts = output[0], parts_of(output)
    for name, part in parts.items():
        for side, model in (("before", clip), ("after", quantized)):
            encoder = model.patcher.model.get_submodule(f"{name}.transformer")
            assert part[f"model_bytes_{side}"] == module_size(encoder), (name, side)
    assert quantized.patcher.model_size() == module_size(quantized.cond_stage_model)
    saved = clip.patcher.model_size() - quantized.patcher.model_size()
    t5 = parts["t5xxl"]
    assert saved == t5["model_bytes_before"] - t5["model_bytes_after"]
    markers = 12 * len(b'{"format": "int8_tensorwise"}')
    assert saved == t5["quantized_bytes_before"] - t5["quantized_bytes_after"] - markers
    assert t5["quantized_bytes_after"] / (2 * t5["quantized_elements"]) <= 0.51
    whole = [model.patcher.model_size() / 2**20 for model in (clip, quantized)]
    assert output[1].startswith("{:.1f} -> {:.1f} MiB in all".format(*whole))


def test_the_clip_goes_along_with_all_that_was_set_on_it(clip, execute):
    changed = clip.clone()
    changed.clip_layer(-2)
    changed.use_clip_schedule = True
    changed.apply_hooks_to_conds = "hooks"
    changed.set_tokenizer_option("min_length", 12)
    quantized = execute(changed)[0]
    assert (quantized.layer_idx, quantized.use_clip_schedule) == (-2, True)
    assert quantized.apply_hooks_to_conds == "hooks"
    assert quantized.tokenizer_options == {"min_length": 12}
    assert quantized.tokenizer is clip.tokenizer
    assert quantized.patcher.model is quantized.cond_stage_model is not clip.cond_stage_model
    assert quantized.patcher.is_clip
    assert clip.layer_idx is None


def test_a_set_clip_layer_still_takes_effect(clip, execute):
    changed = clip.clone()
    changed.clip_layer(-2)
    expected = encode(changed)[0]
    assert relative(encode(execute(changed)[0])[0], expected) <= BOUNDS["int8"]
    assert relative(encode(clip)[0], expected) > 0.1


def test_unload_and_reload_is_bit_equal(clip, execute):
    import comfy.model_management

    quantized = execute(clip)[0]
    before = encode(quantized)
    comfy.model_management.unload_all_models()
    assert all(map(torch.equal, encode(quantized), before))


@pytest.mark.parametrize("method", BOUNDS)
def test_a_partial_load_encodes_what_a_full_load_encodes(clip, execute, method):
    import comfy.model_management

    quantized = execute(clip, method)[0]
    tokens = quantized.tokenize("a red fox in the snow")
    full = encode(quantized)[0]
    comfy.model_management.unload_all_models()
    patcher, model = quantized.patcher, quantized.cond_stage_model
    for share in (0.02, 0.5, 0.9):
        patcher.load(torch.device("cpu"), lowvram_model_memory=int(patcher.model_size() * share))
        waiting = [m for m in model.modules() if not getattr(m, "comfy_patched_weights", False)]
        assert any(type(m).__name__ == "QuantizedLinear" for m in waiting), share
        assert torch.equal(model.encode_token_weights(tokens)[0], full), share
        patcher.detach()


@pytest.mark.parametrize("method", BOUNDS)
def test_a_lora_after_the_node_acts_and_comes_off_bit_exactly(clip, execute, method):
    exact = encode(with_lora(clip))[0] - encode(clip)[0]
    quantized = execute(clip, method)[0]
    before = encode(quantized)[0]
    effect = encode(with_lora(quantized))[0] - before
    assert torch.cosine_similarity(effect.flatten(), exact.flatten(), 0) > 0.95
    assert 0.9 < (effect.norm() / exact.norm()).item() < 1.1
    assert torch.equal(encode(quantized)[0], before)


def test_a_lora_before_the_node_is_rounded_once_with_the_weight(clip, execute):
    import comfy.lora

    patched = with_lora(clip)
    output = execute(patched)
    assert output[0].patcher.patches == {}
    weight = clip.cond_stage_model.get_submodule(LORA_LAYER).weight.float().clone()
    key = f"{LORA_LAYER}.weight"
    exact = comfy.lora.calculate_weight(patched.patcher.patches[key], weight.clone(), key)
    baked = output[0].cond_stage_model.get_submodule(LORA_LAYER).weight.dequantize()
    assert relative(baked, exact) < 0.01 < relative(weight, exact)
    expected = encode(patched)[0]
    assert relative(encode(output[0])[0], expected) <= BOUNDS["int8"]


def test_a_lora_on_a_kept_encoder_stays_pending(clip, execute):
    key = "clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
    patched = clip.clone()
    patched.add_patches({key: ("diff", (torch.ones(128, 64),))})
    quantized = execute(patched)[0]
    assert list(quantized.patcher.patches) == [key]
    assert torch.equal(encode(quantized)[1], encode(patched)[1])


def test_a_lora_hook_on_a_quantized_clip_acts_and_leaves_nothing_behind(clip, execute):
    import comfy.hooks
    from comfy_extras.nodes_hooks import SetClipHooks

    def hooked(target):
        hooks = comfy.hooks.create_hook_lora(lora(clip), 0.0, 1.0)
        options = {"schedule_clip": True, "apply_to_conds": True, "hooks": hooks}
        with_hooks = SetClipHooks().apply_hooks(target, **options)[0]
        tokens = with_hooks.tokenize("a red fox in the snow")
        return with_hooks.encode_from_tokens_scheduled(tokens, show_pbar=False)[0][0]

    quantized = execute(clip)[0]
    before = encode(quantized)[0]
    effect = hooked(quantized) - before
    exact = hooked(clip) - encode(clip)[0]
    assert torch.cosine_similarity(effect.flatten(), exact.flatten(), 0) > 0.95
    assert torch.equal(encode(quantized)[0], before)


def test_none_gives_back_the_same_clip(clip, execute):
    output = execute(clip, "none")
    assert output[0] is clip
    assert [part["quantized_layers"] for part in output.ui["graphquant"]] == [0, 0]


def test_a_quantized_clip_comes_back_untouched(clip, execute):
    once = execute(clip)[0]
    output = execute(once, "int4", preset="t5", exclude="clip_l\nwo")
    assert output[0] is once
    assert parts_of(output)["t5xxl"]["method"] == "already_quantized"


def test_patterns_may_name_one_encoder(clip, execute):
    output = execute(clip, preset="none", include="t5xxl", exclude="block.1")
    reasons = {
        name: {la["reason"] for la in part["layers"] if la["action"] == "keep"}
        for name, part in parts_of(output).items()
    }
    assert reasons == {"clip_l": {"not included"}, "t5xxl": {"excluded by block.1"}}
    assert parts_of(output)["t5xxl"]["quantized_layers"] == 7


def test_a_named_preset_holds_for_every_encoder(clip, execute):
    parts = parts_of(execute(clip, preset="generic"))
    assert parts["clip_l"]["preset"] == parts["t5xxl"]["preset"] == "generic"
    assert (parts["clip_l"]["quantized_layers"], parts["t5xxl"]["quantized_layers"]) == (12, 14)


def test_an_exclude_pattern_that_means_nothing_is_a_warning(clip, execute):
    part = parts_of(execute(clip, exclude="no_such_layer"))["t5xxl"]
    assert "Exclude pattern 'no_such_layer' matches none of 27 layers." in part["warnings"]


def test_an_encoder_that_is_all_kept_is_refused_with_the_reason(files, execute):
    import comfy.sd

    from lab.nodes.clip_sizes import MODEL_OPTIONS

    clip_l = comfy.sd.load_clip([str(files[0])], model_options=copy.deepcopy(MODEL_OPTIONS))
    with pytest.raises(NothingToQuantizeError) as error:
        execute(clip_l)
    assert str(error.value) == (
        'No layer is left to quantize: 13 of 13 are kept, 13 of them by "preset clip keeps *". '
        "Loosen include, exclude or preset."
    )


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"include": "t6xxl"}, PatternError, "Include pattern 't6xxl' matches none of 27 layers"),
        ({"include": "clip_l"}, NothingToQuantizeError, "27 of 27 are kept"),
        ({"granularity": "per-block"}, UnknownNameError, "Unknown granularity 'per-block'"),
        ({"preset": "t7"}, UnknownNameError, "Unknown preset 't7'"),
        ({"compile_mode": "fast"}, UnknownNameError, "Unknown compile mode 'fast'"),
        ({"compute_device": "gpu"}, ValueError, "compute_device is gpu, but"),
        ({"method": "int9"}, UnknownNameError, "Unknown method 'int9'"),
    ],
)
def test_refusals_name_the_fact(clip, execute, options, error, words):
    with pytest.raises(error, match=words):
        execute(clip, **options)


def test_a_checkpoint_without_clip_is_refused(execute):
    with pytest.raises(ValueError, match="There is no CLIP"):
        execute(None)


def test_cancelling_leaves_the_clip_as_it_was(clip, execute, monkeypatch):
    import comfy.model_management

    before = encode(clip)
    calls = []

    def cancel():
        calls.append(1)
        if len(calls) == 3:
            raise comfy.model_management.InterruptProcessingException

    with monkeypatch.context() as patch:
        patch.setattr(
            comfy.model_management, "throw_exception_if_processing_interrupted", cancel
        )
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            execute(clip)
    assert all(map(torch.equal, encode(clip), before))
