"""Quantize Text Encoder, run as a class on ComfyUI's own encoders, without a server."""

import copy

import pytest
import torch

from graphquant.quant_core import NothingToQuantizeError, PatternError, UnknownNameError
from lab import tiny_clips
from lab.nodes.clip_sizes import MODEL_OPTIONS
from lab.sampling import relative_l2
from lab.tiny_clips import encode

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.usefixtures("inference_mode")]

# method: relative L2 of the encoded prompt, of the tiny T5 and the tiny Qwen alike.
BOUNDS = {"fp8-weight-only": 0.06, "int8": 0.015, "int4": 0.2}


@pytest.fixture
def execute():
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder

    return lambda clip, method="int8", **options: GQQuantizeTextEncoder.execute(
        clip=clip, method=method, **options
    )


def parts_of(output):
    return {part["part"]: part for part in output.ui["graphquant"]}


def counts_of(parts):
    """Preset, quantized layers and all layers of each encoder."""
    keys = ("preset", "quantized_layers", "total_layers")
    return {name: tuple(part[key] for key in keys) for name, part in parts.items()}


@pytest.mark.parametrize("method", BOUNDS)
def test_the_prompt_is_encoded_within_bounds_and_the_input_stays_bit_identical(
    clip, execute, method
):
    before = encode(clip)
    after = encode(execute(clip, method)[0])
    assert 1e-4 < relative_l2(after[0], before[0]) <= BOUNDS[method]
    assert torch.equal(after[1], before[1])  # CLIP-L's pooled output: it is kept
    again = encode(clip)
    assert all(map(torch.equal, again, before))


@pytest.mark.parametrize("method", BOUNDS)
def test_a_decoder_as_encoder_is_within_the_same_bounds(qwen_clip, execute, method):
    before = encode(qwen_clip)[0]
    output = execute(qwen_clip, method, exclude="embed_tokens")
    assert 1e-4 < relative_l2(encode(output[0])[0], before) <= BOUNDS[method]
    assert counts_of(parts_of(output)) == {"qwen3_4b": ("qwen", 28, 29)}
    assert torch.equal(encode(qwen_clip)[0], before)


def test_auto_is_int8_on_every_machine(clip, execute):
    output = execute(clip, "auto")
    part = parts_of(output)["t5xxl"]
    assert part["method"] == "int8"
    assert "auto chose int8" in part["notes"][0]
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
    head = "{:.1f} -> {:.1f} MiB in all".format(
        *(model.patcher.model_size() / 2**20 for model in (clip, output[0]))
    )
    assert output[1].startswith(head)
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
    assert 1e-4 < relative_l2(after[0], before[0]) <= 0.03
    assert torch.equal(after[1], before[1])


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


def test_an_encoder_that_is_all_kept_is_refused_with_the_reason(clip_files, execute):
    import comfy.sd

    clip_l = comfy.sd.load_clip([str(clip_files[0])], model_options=copy.deepcopy(MODEL_OPTIONS))
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
