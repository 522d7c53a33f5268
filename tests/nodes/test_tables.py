"""Embeddings of text encoders, stored in INT8 and looked up row by row, in the real ComfyUI."""

import copy

import pytest
import torch

from lab import tiny_clips
from lab.counting import operations
from lab.nodes.clip_sizes import MODEL_OPTIONS
from lab.sampling import relative_l2
from lab.tiny_clips import encode

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.usefixtures("inference_mode")]

T5 = {"t5xxl_model_config": {"d_model": 640, "d_ff": 64, "d_kv": 32, "num_heads": 4}}
# ComfyUI looks for quantized layers in a T5-XXL by a name in its layer 23.
T5["t5xxl_model_config"]["num_layers"] = 24
KEY = "qwen3_4b.transformer.model.embed_tokens.weight"


def quantize(clip, method="int8", **options):
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder

    output = GQQuantizeTextEncoder.execute(clip=clip, method=method, **options)
    return output[0], output.ui["graphquant"][0]


def only_table(clip):
    """A copy of ``clip`` in which nothing but the table is quantized, and that table's module."""
    quantized, _ = quantize(clip, include="embed_tokens")
    return quantized, table_of(quantized)


def table_of(clip):
    return clip.cond_stage_model.qwen3_4b.transformer.model.embed_tokens


def lora_for(weight, rank=3):
    generator = torch.Generator().manual_seed(5)
    up = torch.randn(weight.shape[0], rank, generator=generator)
    down = torch.randn(rank, weight.shape[1], generator=generator)
    from comfy.weight_adapter import LoRAAdapter

    return LoRAAdapter(set(), (up, down, float(rank), None, None, None)), up @ down


@pytest.mark.parametrize("method", ["int8", "fp8-weight-only", "int4"])
def test_every_method_stores_a_large_table_in_int8_and_tells_so(method, qwen_clip):
    before = encode(qwen_clip)[0]
    quantized, report = quantize(qwen_clip, method, include="embed_tokens")
    (table,) = (la for la in report["layers"] if la["action"] == "quantize")
    rows, width = table["shape"]
    assert (table["kind"], table["format"]) == ("Table", "int8 per-row")
    assert table["bytes_after"] == rows * width + 4 * rows
    assert 1e-4 < relative_l2(encode(quantized)[0], before) < 0.012
    assert torch.equal(encode(qwen_clip)[0], before)
    told = sum(la["bytes_after"] for la in report["layers"])
    told += sum(each["bytes"] for each in report["remainder"])
    assert told == quantized.patcher.model_size()


def test_a_lookup_decodes_the_rows_that_are_asked_for_and_no_others(qwen_clip):
    _, table = only_table(qwen_clip)
    ids = torch.tensor([[3, 151000, 3], [0, 1, 2]])
    for look_up in (lambda: table(ids, out_dtype=torch.float32), lambda: table(ids)):
        made = operations(look_up).new
        assert max(elements for _, elements in made) <= ids.numel() * table.embedding_dim
    rows = table(ids, out_dtype=torch.float32)
    assert torch.equal(rows, table.weight.dequantize().float()[ids])
    assert table(ids).dtype == torch.bfloat16
    assert table(ids[:, :0], out_dtype=torch.float32).shape == (2, 0, table.embedding_dim)
    looked_up = torch.nn.functional.embedding(ids, table.weight)
    assert torch.equal(looked_up, table.weight.dequantize()[ids])


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "not loaded"])
def test_a_lora_on_a_table_changes_its_rows_and_comes_off_bit_exactly(loaded, qwen_clip):
    from comfy.model_patcher import LowVramPatch

    quantized, table = only_table(qwen_clip)
    ids = torch.tensor([[7, 151000, 7, 0]])
    plain = table(ids, out_dtype=torch.float32)
    adapter, change = lora_for(table.weight)
    patcher = quantized.patcher.clone()
    patcher.add_patches({KEY: adapter}, 0.5)
    if loaded:
        patcher.patch_model()
        changed = table(ids, out_dtype=torch.float32)
        patcher.unpatch_model()
    else:
        table.weight_function = [LowVramPatch(KEY, patcher.patches)]
        made = operations(lambda: table(ids, out_dtype=torch.float32)).new
        changed = table(ids, out_dtype=torch.float32)
        table.weight_function = []
        assert max(elements for _, elements in made) < table.num_embeddings * table.embedding_dim
    assert relative_l2(changed - plain, 0.5 * change[ids]) < 0.01
    assert torch.equal(table(ids, out_dtype=torch.float32), plain)


def test_two_waiting_loras_are_added_too(qwen_clip):
    from comfy.model_patcher import LowVramPatch

    quantized, table = only_table(qwen_clip)
    ids = torch.tensor([[7, 151000]])
    plain = table(ids, out_dtype=torch.float32)
    adapter, change = lora_for(table.weight)
    patcher = quantized.patcher.clone()
    patcher.add_patches({KEY: adapter}, 1.0)
    table.weight_function = [LowVramPatch(KEY, patcher.patches)] * 2
    changed = table(ids, out_dtype=torch.float32)
    assert relative_l2(changed - plain, 2 * change[ids]) < 0.01


def test_the_logits_of_text_generation_need_no_decoded_table(qwen_clip):
    _, table = only_table(qwen_clip)
    model = qwen_clip.cond_stage_model.qwen3_4b.transformer
    x = torch.randn(1, 1, table.embedding_dim, generator=torch.Generator().manual_seed(2))
    from comfy.ops import cast_bias_weight

    weight, _, _ = cast_bias_weight(table, x.bfloat16(), offloadable=True)
    assert weight is table.weight or type(weight).__name__ == "QuantizedTensor"
    logits = torch.nn.functional.linear(x.bfloat16(), weight)
    expected = torch.nn.functional.linear(x.bfloat16(), model.model.embed_tokens.weight)
    assert relative_l2(logits, expected) < 0.01


def test_a_saved_table_is_read_by_comfyui_alone_in_the_same_codes(tmp_path):
    import comfy.sd
    from safetensors.torch import save_file

    from graphquant.nodes.bridge.saving.save_clip import save_quantized_clip

    options = copy.deepcopy(MODEL_OPTIONS) | T5
    clip_l, t5 = tmp_path / "clip_l.safetensors", tmp_path / "t5.safetensors"
    save_file(tiny_clips.weights("clip_l"), clip_l)
    save_file(tiny_clips.weights("t5xxl", options), t5)

    def load(*paths):
        return comfy.sd.load_clip(
            [str(path) for path in paths],
            clip_type=comfy.sd.CLIPType.FLUX,
            model_options=copy.deepcopy(options),
        )

    quantized = load(clip_l, t5)
    quantized, _ = quantize(quantized)
    saved = save_quantized_clip(quantized, tmp_path / "int8.safetensors")
    assert saved.sizes["t5xxl.transformer"] < 0.55 * t5.stat().st_size
    stock = load(*saved.paths.values())
    ours, theirs = (
        clip.cond_stage_model.t5xxl.transformer.shared.weight for clip in (quantized, stock)
    )
    assert theirs._layout_cls == "TensorWiseINT8Layout"
    assert torch.equal(ours._qdata, theirs._qdata)
    assert relative_l2(encode(stock)[0], encode(quantized)[0]) < 0.02


def test_a_table_tied_to_a_head_that_stays_is_kept_with_the_reason(qwen_clip):
    from torch import nn

    decoder = qwen_clip.cond_stage_model.qwen3_4b.transformer.model
    decoder.lm_head = nn.Linear(1, 1, bias=False)
    decoder.lm_head.weight = decoder.embed_tokens.weight
    try:
        _, report = quantize(qwen_clip)
    finally:
        del decoder.lm_head
    layers = {la["name"]: la for la in report["layers"]}
    assert layers["model.embed_tokens"]["action"] == "keep"
    assert "model.lm_head" in layers["model.embed_tokens"]["reason"]


def test_small_embeddings_and_the_core_stay_as_they_were(qwen_clip):
    from graphquant.quant_core import plan_component

    encoder = qwen_clip.cond_stage_model.qwen3_4b.transformer
    plan = plan_component(encoder, "int8", "encoder")
    assert "embed_tokens" not in " ".join(layer.name for layer in plan.layers)
    small = torch.nn.Embedding(1000, 64)
    holder = torch.nn.Sequential(small, torch.nn.Linear(64, 64))
    plan = plan_component(holder, "int8", "encoder", tables=True)
    assert [layer.name for layer in plan.layers] == ["1"]


def test_a_clip_that_is_all_quantized_comes_back_as_it_is(qwen_clip):
    quantized, _ = quantize(qwen_clip)
    again, report = quantize(quantized, "int4")
    assert again is quantized
    assert report["method"] == "already_quantized"
    assert all("already quantized" in layer["reason"] for layer in report["layers"])


def test_partly_loaded_and_merged_tables_compute_the_same_rows(qwen_clip):
    import comfy.model_management
    from comfy_extras.nodes_model_merging import CLIPMergeSimple

    quantized, _ = quantize(qwen_clip)
    before, patcher = encode(quantized)[0], quantized.patcher
    comfy.model_management.unload_all_models()
    patcher.load(torch.device("cpu"), lowvram_model_memory=patcher.model_size() // 2)
    assert torch.equal(encode(quantized)[0], before)
    patcher.detach()
    (merged,) = CLIPMergeSimple().merge(quantized, qwen_clip, 0.5)
    assert relative_l2(encode(merged)[0], encode(qwen_clip)[0]) < 0.02
    assert torch.equal(encode(quantized)[0], before)
