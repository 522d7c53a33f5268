"""Pipelines of diffusers: each module by a method of its own, and what diffusers does to them."""

import pytest
import torch

from graphquant.quant_core.applying.pipeline import quantize_pipeline
from graphquant.quant_core.errors import (
    CalibrationError,
    ConfigError,
    FitError,
    ModuleError,
    UnknownNameError,
)
from lab.sampling import relative_l2

pytest.importorskip("diffusers", reason="diffusers is not installed")

from lab.tiny_pipelines import PIPELINES, draw, tiny_pipeline

EIGHT_BITS = {"transformer": "int8", "unet": "int8", "text_encoder": "int8", "vae": "int8"}


def methods_for(pipe):
    return {name: m for name, m in EIGHT_BITS.items() if name in pipe.components}


@pytest.fixture(params=PIPELINES)
def name(request):
    return request.param


def core_name(pipe):
    return "unet" if "unet" in pipe.components else "transformer"


def core(pipe):
    return getattr(pipe, core_name(pipe))


def quantized(module):
    return [n for n, p in module.named_parameters() if hasattr(p, "quantized_weight")]


def test_each_pipeline_draws_nearly_what_it_drew(name):
    pipe = tiny_pipeline(name)
    before = draw(name, pipe)
    stats = quantize_pipeline(pipe, methods_for(pipe))
    assert all(found["quantized_layers"] > 5 for found in stats.values()) and len(stats) == 3
    assert 0 < relative_l2(draw(name, pipe), before) < 0.05


def test_the_longest_name_counts_and_default_is_for_all_others():
    pipe = tiny_pipeline("flux")
    stats = quantize_pipeline(
        pipe,
        {
            "transformer": "int4-dynamic",
            "transformer.transformer_blocks.1": None,
            "transformer.transformer_blocks.0.attn": "int8",
            "vae": None,
            "default": "fp8-weight-only",
        },
    )
    kinds = {
        layer: str(pipe.transformer.get_parameter(layer).quantized_weight().format)
        for layer in quantized(pipe.transformer)
    }
    assert kinds["transformer_blocks.0.attn.to_q.weight"] == "int8 per-row"
    assert "int4" in kinds["single_transformer_blocks.0.attn.to_q.weight"]
    assert not any(layer.startswith("transformer_blocks.1.") for layer in kinds)
    assert quantized(pipe.vae) == [] and len(quantized(pipe.text_encoder)) == 12
    assert stats["text_encoder"]["method"] == "fp8-weight-only"


def test_without_a_default_only_what_is_named_is_quantized():
    pipe = tiny_pipeline("sdxl")
    assert set(
        quantize_pipeline(pipe, {"unet": {"quant_method": "bitsandbytes", "load_in_8bit": True}})
    ) == {"unet"}
    assert quantized(pipe.text_encoder) == []


@pytest.mark.parametrize(
    ("methods", "error", "words"),
    [
        ({"transfomer": "int8"}, ConfigError, "'transfomer' means no layer .* transformer"),
        ({"transformer": "int8", "text_encoder": "int9"}, UnknownNameError, "'int9'"),
        ({"transformer": "int8", "vae": "int4"}, ValueError, "int4"),
        ({"transformer": "int8", "text_encoder": "fit"}, FitError, "fit needs a size"),
        ({"transformer": "int8", "text_encoder": "fp8-static"}, CalibrationError, "scales"),
        (
            {"transformer": "int8", "text_encoder": {"quant_method": "torchao", "quant_type": "?"}},
            ConfigError,
            "quant_type",
        ),
        ("int8", ConfigError, "methods is 'int8'"),
        (["transformer"], ConfigError, "methods is"),
        (None, ConfigError, "methods is None"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_changes(methods, error, words):
    pipe = tiny_pipeline("flux")
    with pytest.raises(error, match=words):
        quantize_pipeline(pipe, methods)
    assert quantized(pipe.transformer) == []


def test_a_module_without_values_is_refused_before_anything_changes():
    pipe = tiny_pipeline("flux")
    pipe.text_encoder.to("meta")
    with pytest.raises(ModuleError, match="is on the meta device"):
        quantize_pipeline(pipe, {"transformer": "int8", "text_encoder": "int8"})
    assert quantized(pipe.transformer) == []


@pytest.mark.parametrize("pipe", [None, "flux", torch.nn.Linear(4, 4)])
def test_what_is_not_a_pipeline_is_named(pipe):
    with pytest.raises(ConfigError, match=f"^pipe is a {type(pipe).__name__}, which has no"):
        quantize_pipeline(pipe, {"transformer": "int8"})


def test_group_and_model_offload_change_nothing(name):
    pipe = tiny_pipeline(name)
    quantize_pipeline(pipe, methods_for(pipe))
    expected = draw(name, pipe)
    pipe.enable_model_cpu_offload(device="cpu")
    assert torch.equal(draw(name, pipe), expected)
    pipe.remove_all_hooks()
    cpu = torch.device("cpu")
    core(pipe).enable_group_offload(cpu, cpu, offload_type="block_level", num_blocks_per_group=1)
    assert torch.equal(draw(name, pipe), expected)


@pytest.mark.parametrize("method", ["int8", "int4", "fp8-dynamic"])
def test_sequential_offload_changes_nothing(name, method):
    """``enable_sequential_cpu_offload`` on an accelerator: a weight is there for its layer's call
    alone. It calls accelerate so for each module, with "cpu:0", which no CPU tensor calls itself.
    """
    from accelerate import cpu_offload

    pipe = tiny_pipeline(name)
    quantize_pipeline(pipe, {**methods_for(pipe), core_name(pipe): method})
    expected = draw(name, pipe)
    for module in (core(pipe), pipe.text_encoder, pipe.vae):
        cpu_offload(module, torch.device("cpu"))
    assert all(p.is_meta for p in core(pipe).parameters())
    assert torch.equal(draw(name, pipe), expected)
    assert all(p.is_meta for p in core(pipe).parameters())


def test_save_pretrained_says_what_saves_instead(tmp_path):
    pipe = tiny_pipeline("flux")
    quantize_pipeline(pipe, {"transformer": "int8", "text_encoder": "int4"})
    for part in (pipe, pipe.transformer, pipe.text_encoder):
        with pytest.raises(RuntimeError, match=r"quant_core\.save_pipeline\(pipe, folder\)"):
            part.save_pretrained(tmp_path)


def test_a_lora_works_on_quantized_layers_and_comes_off(name):
    from peft import LoraConfig

    pipe = tiny_pipeline(name)
    quantize_pipeline(pipe, methods_for(pipe))
    expected = draw(name, pipe)
    lora = LoraConfig(r=4, target_modules=["to_q", "to_v"], init_lora_weights=False)
    core(pipe).add_adapter(lora)
    assert relative_l2(draw(name, pipe), expected) > 1e-4
    core(pipe).delete_adapters("default")
    assert torch.equal(draw(name, pipe), expected)


def test_a_compiled_block_computes_the_same(name):
    pipe = tiny_pipeline(name)
    quantize_pipeline(pipe, methods_for(pipe))
    expected = draw(name, pipe)
    blocks = {"wan": "blocks", "sdxl": "up_blocks"}.get(name, "transformer_blocks")
    blocks = getattr(core(pipe), blocks)
    blocks[0] = torch.compile(blocks[0], backend="aot_eager")
    assert relative_l2(draw(name, pipe), expected) < 1e-5
