"""A saved CLIP is the CLIP, in files that ComfyUI's own loader reads."""


import pytest
import torch

from graphquant.quant_core import QuantizationError
from lab.sampling import relative_l2
from lab.tiny_clips import encode

pytestmark = pytest.mark.usefixtures("comfy", "inference_mode")


LORA = "t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.v"


@pytest.fixture
def clip(deep_clip_files, load_dual_clip):
    return load_dual_clip(*deep_clip_files)


def quantize(clip, method="int8", granularity="per-tensor"):
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder

    return GQQuantizeTextEncoder.execute(clip=clip, method=method, granularity=granularity)[0]


def t5_lora():
    generator = torch.Generator().manual_seed(1)
    up, down = (torch.randn(shape, generator=generator) * 0.1 for shape in ((128, 4), (4, 128)))
    name = f"text_encoders.{LORA}"
    return {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}


def save(clip, target, **options):
    from graphquant.nodes.bridge.saving.save_clip import save_quantized_clip

    return save_quantized_clip(clip, target, **options)


@pytest.mark.parametrize(
    "method, granularity",
    [
        ("int8", "per-row"),
        ("int8", "per-tensor"),
        ("fp8-weight-only", "per-tensor"),
        ("mxfp8", "per-row"),
        ("nvfp4", "per-row"),
    ],
)
@pytest.mark.parametrize("lora", [False, True])
def test_comfyuis_loader_reads_what_was_saved(
    clip, tmp_path, method, granularity, lora, load_dual_clip
):
    from comfy.sd import load_lora_for_models

    quantized = quantize(clip, method, granularity)
    if lora:
        quantized = load_lora_for_models(None, quantized, t5_lora(), 0, 1.0)[1]
    expected = encode(quantized)
    saved = save(quantized, tmp_path / "flux.safetensors")
    assert [path.name for path in saved.paths.values()] == [
        "flux_clip_l.safetensors",
        "flux_t5xxl.safetensors",
    ]
    found = encode(load_dual_clip(*saved.paths.values()))
    plain = relative_l2(encode(clip)[0], encode(quantize(clip, method, granularity))[0])
    assert relative_l2(found[0], expected[0]) < (1.1 * plain if lora else 1e-5)
    assert torch.equal(found[1], expected[1])
    t5 = saved.paths["t5xxl.transformer"]
    assert t5.stat().st_size == saved.sizes["t5xxl.transformer"]


def test_what_comfyui_does_not_read_is_refused_before_a_byte_is_written(clip, tmp_path):
    for method, granularity in (("int4", "per-row"), ("fp8-weight-only", "per-row")):
        with pytest.raises(QuantizationError, match=r"int8.*per-tensor.*CLIPSave"):
            save(quantize(clip, method, granularity), tmp_path / "flux.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_clip_without_quantized_layers_is_refused(clip, tmp_path):
    with pytest.raises(QuantizationError, match="Quantize Text Encoder"):
        save(clip, tmp_path / "flux.safetensors")


def test_a_file_that_exists_is_kept_unless_overwrite(clip, tmp_path):
    quantized = quantize(clip)
    (tmp_path / "flux_t5xxl.safetensors").write_bytes(b"mine")
    with pytest.raises(QuantizationError, match="overwrite"):
        save(quantized, tmp_path / "flux.safetensors")
    assert (tmp_path / "flux_t5xxl.safetensors").read_bytes() == b"mine"
    save(quantized, tmp_path / "flux.safetensors", overwrite=True)


def test_a_single_encoder_has_the_name_alone(qwen_clip, tmp_path):
    saved = save(quantize(qwen_clip), tmp_path / "qwen.safetensors")
    assert [path.name for path in saved.paths.values()] == ["qwen.safetensors"]
    assert saved.layers > 0


def test_the_node_writes_to_models_text_encoders(clip, tmp_path, monkeypatch):
    import folder_paths

    from graphquant.nodes.save_quantized_text_encoder import GQSaveQuantizedTextEncoder

    folder = tmp_path / "text_encoders"
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda kind: [str(folder)])
    found = GQSaveQuantizedTextEncoder.execute(clip=quantize(clip), filename_prefix="a/flux")
    assert found[0].splitlines()[1] == str(folder / "a" / "flux_t5xxl.safetensors")
    assert "quantized layers" in found[1]
    assert len(list((folder / "a").iterdir())) == 2
    lines = found.ui["graphquant_verdict"]
    assert [line["key"] for line in lines] == ["saved", "saved", "loadWith"]
    assert lines[1]["values"]["path"] == "text_encoders/a/flux_t5xxl.safetensors"
    assert lines[2]["values"]["node"] == "Load CLIP (Dual)"


def test_saving_the_same_clip_again_writes_nothing_and_says_so(clip, tmp_path):
    quantized, target = quantize(clip), tmp_path / "flux.safetensors"
    first = save(quantized, target)
    written = {path: path.stat().st_mtime_ns for path in first.paths.values()}
    again = save(quantized, target)
    assert {path: path.stat().st_mtime_ns for path in again.paths.values()} == written
    assert (first.there, again.there) == (frozenset(), frozenset(again.paths))
    assert again.sizes == first.sizes
    assert "there already, byte by byte: not written" in again.to_markdown()
    with pytest.raises(QuantizationError, match="overwrite"):
        save(quantize(clip, "mxfp8"), target)


def test_an_encoder_that_comfyui_reads_plain_only_is_refused(clip, tmp_path):
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder

    quantized = GQQuantizeTextEncoder.execute(clip=clip, method="int8", preset="generic")[0]
    with pytest.raises(QuantizationError, match=r"no quantized clip_l.*exclude"):
        save(quantized, tmp_path / "flux.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["int8-dynamic", "int8-convrot", "nvfp4"])
def test_a_clip_that_multiplies_quantized_is_read_by_stock_with_the_same_codes(
    clip, tmp_path, method, load_dual_clip
):
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder

    quantized = GQQuantizeTextEncoder.execute(clip=clip, method=method, compute="quantized")[0]
    saved = save(quantized, tmp_path / "flux.safetensors")
    loaded = load_dual_clip(*saved.paths.values())
    layers = [clip.cond_stage_model.get_submodule(LORA) for clip in (loaded, quantized)]
    assert torch.equal(*(layer.weight._qdata for layer in layers))
    assert layers[0].weight._layout_cls.startswith(("TensorWiseINT8", "TensorCoreNVFP4"))
    assert relative_l2(encode(loaded)[0], encode(quantized)[0]) < 0.03


def test_a_disk_that_fills_up_is_told_by_the_node_in_words(clip, tmp_path, monkeypatch):
    import folder_paths

    from graphquant.nodes.save_quantized_text_encoder import GQSaveQuantizedTextEncoder
    from graphquant.quant_core.storage import writer

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda kind: [str(tmp_path)])
    monkeypatch.setattr(writer.os, "fsync", full)
    with pytest.raises(QuantizationError, match=r"No space left on device. Make room on that disk"):
        GQSaveQuantizedTextEncoder.execute(clip=quantize(clip), filename_prefix="flux")
    assert list(tmp_path.iterdir()) == []
