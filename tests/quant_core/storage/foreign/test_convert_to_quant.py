"""convert-to-quant's files, by the layout that it writes: the same codes, or a refusal in words."""

import json

import pytest
import torch

from graphquant.quant_core.errors import StorageError
from graphquant.quant_core.formats import MXFP8, BlockFloat8, Float8, Int8
from lab.sampling import relative_l2


def marker(**values):
    return torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)


def row_wise(weight, layer="a"):
    """A scale a row, [N]."""
    stored = Float8().quantize(weight)
    return {
        f"{layer}.weight": stored.qdata,
        f"{layer}.weight_scale": stored.scale.flatten(),
        f"{layer}.comfy_quant": marker(format="float8_e4m3fn_rowwise", orig_dtype="torch.bfloat16"),
    }


def block_wise(weight, layer="a", block=64):
    stored = BlockFloat8(rows=block, columns=block).quantize(weight)
    return {
        f"{layer}.weight": stored.qdata,
        f"{layer}.weight_scale": stored.scale,
        f"{layer}.input_scale": torch.ones(()),
        f"{layer}.comfy_quant": marker(format="float8_e4m3fn_blockwise", group_size=block),
    }


def int8_blocks(weight, layer="a", block=64):
    n, k = weight.shape
    blocks = weight.view(n // block, block, k // block, block)
    scale = blocks.abs().amax((1, 3), keepdim=True) / 127
    return {
        f"{layer}.weight": (blocks / scale).round().view(n, k).to(torch.int8),
        f"{layer}.weight_scale": scale.view(n // block, k // block),
        f"{layer}.input_scale": torch.ones(()),
        f"{layer}.comfy_quant": marker(format="int8_blockwise", group_size=block),
    }


def hybrid(weight, layer="a"):
    stored = MXFP8().quantize(weight)
    return {
        f"{layer}.weight": stored.qdata,
        f"{layer}.weight_scale": stored.scale,
        f"{layer}.weight_scalar": torch.tensor(0.01),
        f"{layer}.comfy_quant": marker(format="hybrid_mxfp8"),
    }


def tensor_wise(weight, layer="b", **values):
    stored = Float8(granularity="per-tensor").quantize(weight)
    return {
        f"{layer}.weight": stored.qdata,
        f"{layer}.weight_scale": stored.scale,
        f"{layer}.comfy_quant": marker(format="float8_e4m3fn", **values),
    }


def int8_rows(weight, layer="b", **values):
    stored = Int8().quantize(weight)
    return {
        f"{layer}.weight": stored.qdata,
        f"{layer}.weight_scale": stored.scale,
        f"{layer}.comfy_quant": marker(format="int8_tensorwise", per_row=True, **values),
    }


KINDS = {
    "rows": (row_wise, Float8(), 0.028),
    "blocks": (block_wise, BlockFloat8(rows=64, columns=64), 0.028),
    "INT8 blocks": (int8_blocks, Int8(), 0.012),
    "hybrid MXFP8": (hybrid, MXFP8("mxfp8"), 0.03),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_the_weight_that_it_was(kind, found, normal):
    write, fmt, bound = KINDS[kind]
    weight = normal(128, 192)
    foreign, files = found({**write(weight), "a.bias": normal(128)})
    layer = foreign.layers["a"]
    assert layer.format == fmt and foreign.plain == ("a.bias",)
    assert layer.origin.startswith("convert-to-quant")
    read = layer.read(files, torch.float32)
    assert 0.001 < relative_l2(read.dequantize(), weight) < bound


@pytest.mark.parametrize("kind", ["rows", "blocks", "hybrid MXFP8"])
def test_codes_stay_bit_by_bit(kind, found, normal):
    tensors = KINDS[kind][0](normal(128, 192))
    foreign, files = found(tensors)
    read = foreign.layers["a"].read(files, torch.float32)
    assert torch.equal(read.qdata.float(), tensors["a.weight"].float())
    assert torch.equal(read.scale.flatten().float(), tensors["a.weight_scale"].flatten().float())


@pytest.mark.parametrize("other", [tensor_wise, int8_rows])
def test_stock_formats_beside_its_own_are_read_too(other, found, normal):
    weight = normal(64, 128, seed=4)
    foreign, files = found({**row_wise(normal(64, 128)), **other(weight)})
    assert set(foreign.layers) == {"a", "b"} and foreign.plain == ()
    read = foreign.layers["b"].read(files, torch.float32)
    assert relative_l2(read.dequantize(), weight) < 0.03


def test_a_file_of_stock_formats_alone_is_comfyuis(found, normal):
    assert found(tensor_wise(normal(64, 128)))[0] is None


def test_markers_in_the_metadata_count_as_well(found, normal):
    tensors = row_wise(normal(64, 128))
    del tensors["a.comfy_quant"]
    told = {"layers": {"a": {"format": "float8_e4m3fn_rowwise"}}}
    foreign, _ = found(tensors, {"_quantization_metadata": json.dumps(told)})
    assert foreign.layers["a"].format == Float8()


BROKEN = [
    (lambda t: t.pop("a.weight_scale"), "lacks a.weight_scale"),
    (lambda t: t.update({"a.weight_scale": torch.ones(7)}), r"shape \[7\], for 64 rows"),
    (lambda t: t.update({"a.weight": torch.ones(64, 128)}), "a.weight as torch.float32"),
    (lambda t: t.update({"b.comfy_quant": marker(format="int3_new")}), "marks b as 'int3_new'"),
    (lambda t: t.update({"b.comfy_quant": marker(format=["x"])}), r"marks b as \['x'\]"),
    (lambda t: t.update({"b.comfy_quant": marker(format="mxfp8")}), "no matrix b.weight"),
    (lambda t: t.update({"c.weight_scale": torch.ones(3)}), "belongs to no quantized layer"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_what_is_not_whole_is_refused_in_words(change, message, found, normal):
    tensors = row_wise(normal(64, 128))
    change(tensors)
    with pytest.raises(StorageError, match=message):
        found(tensors)


def test_what_cannot_be_read_beside_it_is_refused_in_words(found, normal):
    rotated = int8_rows(normal(64, 128), convrot=True, convrot_groupsize=64)
    layers = found({**row_wise(normal(64, 128)), **rotated})[0].layers
    assert str(layers["b"].format) == "int8 per-row, rotated by 64, int8 activations"
    blocks = block_wise(normal(128, 128))
    blocks["a.weight_scale"] = torch.ones(3, 5)
    with pytest.raises(StorageError, match=r"a\.weight_scale of \[3, 5\] for blocks of \[128, 128"):
        found(blocks)
