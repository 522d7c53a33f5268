"""bitsandbytes' own files are read to its own values."""

import json

import pytest
import torch

from graphquant.quant_core import QuantizationError

with pytest.MonkeyPatch.context() as patch:
    # It compiles one function, whose compiler takes ten seconds to import; uncompiled the numbers
    # are those of its own code.
    patch.setattr(torch, "compile", lambda function=None, **_: function or (lambda it: it))
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

SHAPES = [(48, 128), (7, 33), (256, 1024)]


def four_bits(weight, code, double):
    """State dict of a Linear4bit, and the weight that bitsandbytes makes of it."""
    n, k = weight.shape
    layer = bnb.nn.Linear4bit(k, n, quant_type=code, compress_statistics=double)
    layer.weight = bnb.nn.Params4bit(
        weight, requires_grad=False, quant_type=code, compress_statistics=double
    )
    layer.to("cpu")
    quantized = layer.weight
    dense = bnb.functional.dequantize_4bit(quantized.data, quantized.quant_state)
    return {f"layer.{name}": tensor for name, tensor in layer.state_dict().items()}, dense


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("double", [False, True], ids=["plain", "double"])
@pytest.mark.parametrize("code", ["nf4", "fp4"])
def test_four_bit_layers_have_bitsandbytes_values(found, normal, code, double, shape):
    tensors, dense = four_bits(normal(*shape, dtype=torch.float32), code, double)
    foreign, files = found(tensors)
    (layer,) = foreign.layers.values()
    assert layer.name == "layer" and layer.shape == shape and layer.dtype == torch.float32
    assert layer.origin == f"bitsandbytes {code.upper()}"
    assert foreign.plain == ("layer.bias",)
    assert {*layer.tensors, *foreign.plain} == set(tensors)
    read = layer.read(files, torch.float32)
    assert torch.equal(read.dequantize(), dense)
    assert read.nbytes == layer.format.nbytes(shape)


def test_int8_layers_have_bitsandbytes_values(found, normal):
    layer = bnb.nn.Linear8bitLt(128, 48, has_fp16_weights=False)
    weight = normal(48, 128, dtype=torch.float16)
    layer.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    state = layer.to("cpu").state_dict()
    foreign, files = found({f"layer.{name}": tensor for name, tensor in state.items()})
    (read,) = (found.read(files, torch.float32) for found in foreign.layers.values())
    dense = bnb.functional.int8_vectorwise_dequant(state["weight"], state["SCB"])
    assert torch.equal(read.qdata, state["weight"])
    assert (read.dequantize() - dense).abs().max() <= 2e-7 * dense.abs().max()
    assert ((read.dequantize() - weight.float()).norm() / weight.float().norm()) < 0.01


def test_other_storage_dtypes_are_the_same_codes(found, normal):
    tensors, dense = four_bits(normal(48, 128, dtype=torch.float32), "nf4", False)
    tensors["layer.weight"] = tensors["layer.weight"].view(-1).view(torch.bfloat16)
    foreign, files = found(tensors)
    assert torch.equal(foreign.layers["layer"].read(files, torch.float32).dequantize(), dense)


STATE = "layer.weight.quant_state.bitsandbytes__nf4"


def with_state(**values):
    def change(tensors):
        state = {**json.loads(bytes(tensors[STATE].tolist())), **values}
        tensors[STATE] = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)

    return change


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: t.pop("layer.weight.absmax"), "lacks layer.weight.absmax"),
        (lambda t: t.pop("layer.weight"), "has no layer.weight of 6144 codes"),
        (lambda t: t.pop(STATE), "layer.weight.absmax, which belongs to no quantized layer"),
        (lambda t: t.update({STATE: torch.zeros(3, dtype=torch.uint8)}), "that is not JSON"),
        (lambda t: t["layer.weight.quant_map"].mul_(2), "has a table of its own"),
        (lambda t: t.update({"other.SCB": torch.ones(4)}), "lacks other.weight"),
        (with_state(shape=[48, 2**40]), "has no layer.weight of"),
        (with_state(shape=[-1, 128]), "has the shape [-1, 128]"),
        (with_state(shape="128"), "has the shape '128'"),
        (with_state(blocksize=0), "has blocks of 0"),
        (with_state(blocksize=63), "has blocks of 63"),
        (with_state(nested_blocksize=128), "nested 128"),
        (with_state(nested_blocksize=256, nested_offset=float("nan")), "has blocks of 64"),
        (with_state(name="x" * 70_000), "which is a short text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_contradicts_itself_is_refused_in_one_line(found, normal, change, fault):
    tensors, _ = four_bits(normal(48, 128), "nf4", False)
    change(tensors)
    with pytest.raises(QuantizationError) as error:
        found(tensors)
    assert fault in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith("foreign.safetensors ")
