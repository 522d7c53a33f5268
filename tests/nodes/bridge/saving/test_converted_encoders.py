"""A converted text encoder is the node's file, and one that ComfyUI would not read is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from graphquant.nodes.bridge.architecture.detected import sub_encoders
from graphquant.quant_core.conversion.convert import convert
from graphquant.quant_core.conversion.inspection import inspect_file
from graphquant.quant_core.conversion.readers import is_loaded_quantized
from graphquant.quant_core.errors import StorageError
from graphquant.quant_core.storage import STOCK_MARKER
from lab import tiny_clips
from lab.architectures import text_encoder
from lab.architectures.encoders import _ENCODERS

pytestmark = pytest.mark.usefixtures("comfy", "inference_mode")


@pytest.fixture
def t5_file(deep_clip_files):
    """A T5 of 24 layers."""
    return deep_clip_files[1]


@pytest.fixture
def load(deep_clip_files, load_dual_clip):
    """``load(path)``: the CLIP of FLUX.1's kind whose T5 is in ``path``."""
    return lambda path: load_dual_clip(deep_clip_files[0], path)


def marker(tensor):
    return json.loads(bytes(tensor))


@pytest.mark.parametrize(
    "method, granularity",
    [
        ("int8", "per-row"),
        ("fp8-weight-only", "per-tensor"),
        ("mxfp8", "per-row"),
        ("nvfp4", "per-row"),
    ],
)
def test_a_converted_encoder_is_the_nodes_file_tensor_by_tensor(
    t5_file, load, tmp_path, method, granularity
):
    from graphquant.nodes.bridge.saving.save_clip import save_quantized_clip
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder

    quantized = GQQuantizeTextEncoder.execute(
        clip=load(t5_file), method=method, granularity=granularity
    )[0]
    save_quantized_clip(quantized, tmp_path / "node.safetensors")
    convert(t5_file, tmp_path / "cli.safetensors", method, granularity)
    expected, found = (load_file(tmp_path / f"{n}.safetensors") for n in ("node_t5xxl", "cli"))
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        if name.endswith(STOCK_MARKER):  # the node's says besides what this machine multiplies by
            assert marker(tensor).items() <= marker(expected[name]).items()
            continue
        bits = (t.reshape(-1).view(torch.uint8) for t in (tensor, expected[name]))
        assert torch.equal(*bits), name
    assert torch.equal(
        tiny_clips.encode(load(tmp_path / "cli.safetensors"))[0], tiny_clips.encode(quantized)[0]
    )


def test_an_encoder_in_a_format_of_this_pack_alone_is_refused(t5_file, tmp_path):
    out = tmp_path / "out.safetensors"
    for file_format in ("auto", "stock"):
        with pytest.raises(StorageError, match=r"no text encoder in int4.* Choose int8.*diffusers"):
            convert(t5_file, out, "int4", file_format=file_format)
    assert not out.exists()
    convert(t5_file, out, "int4", file_format="graphquant")
    assert inspect_file(out).readers[0].startswith("load_pipeline")


def test_an_encoder_that_comfyui_reads_plain_only_is_refused(tmp_path):
    small = tmp_path / "t5_base.safetensors"
    save_file(tiny_clips.weights("t5xxl"), small)
    with pytest.raises(StorageError, match=r"read no quantized t5 of this size\. Leave it"):
        convert(small, tmp_path / "out.safetensors", "int8")
    assert inspect_file(small).readers == ("Load CLIP: nothing in it is quantized.",)


@pytest.mark.parametrize("name", [*_ENCODERS, "gemma4"])
def test_where_quantized_layers_are_looked_for_is_asked_of_comfyui(name):
    from graphquant.nodes.bridge.saving.save_clip import _is_loaded_quantized

    for encoder in sub_encoders(text_encoder(name)).values():
        assert is_loaded_quantized(encoder.state_dict()) == _is_loaded_quantized(encoder)
