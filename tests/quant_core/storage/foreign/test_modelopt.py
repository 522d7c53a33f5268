"""ModelOpt's exports, made by its published recipe: its library needs a GPU to pack NVFP4."""

import pytest
import torch

from graphquant.quant_core import QuantizationError

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def float8(weight, scale_shape=()):
    """weight / (max / 448) in E4M3; ``weight_scale`` multiplies."""
    largest = weight.abs().amax(dim=1, keepdim=True) if scale_shape else weight.abs().max()
    scale = largest / 448
    codes = (weight / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
    tensors = {"layer.weight": codes, "layer.weight_scale": scale.reshape(scale_shape or ())}
    return tensors, codes.float() * scale


def nvfp4(weight):
    """E2M1 codes, the first of two in the low nibble; an E4M3 scale for 16; one scale for all."""
    n, k = weight.shape
    whole = weight.abs().max() / (6 * 448)
    blocks = weight.view(n, -1, 16)
    scale = (blocks.abs().amax(dim=-1) / 6 / whole).clamp(max=448).to(torch.float8_e4m3fn)
    step = (scale.float() * whole).unsqueeze(-1)
    magnitude = ((blocks / step).abs().unsqueeze(-1) - E2M1).abs().argmin(dim=-1)
    dense = torch.where(blocks < 0, -1, 1) * E2M1[magnitude] * step
    codes = (magnitude + 8 * (blocks < 0)).view(n, k).to(torch.uint8)
    packed = codes[:, ::2] | (codes[:, 1::2] << 4)
    tensors = {
        "layer.weight": packed,
        "layer.weight_scale": scale,
        "layer.weight_scale_2": whole,
        "layer.input_scale": torch.tensor(0.01),
    }
    return tensors, dense.view(n, k)


@pytest.mark.parametrize("scale_shape", [(), (40,), (40, 1)], ids=str)
def test_fp8_has_its_values_with_a_scale_a_tensor_or_a_row(found, normal, scale_shape):
    tensors, dense = float8(normal(40, 96), scale_shape)
    foreign, files = found({**tensors, "layer.input_scale": torch.tensor(0.5)})
    read = foreign.layers["layer"].read(files, torch.float32)
    assert torch.equal(read.dequantize(), dense)
    assert foreign.plain == () and len(foreign.layers["layer"].tensors) == 3


@pytest.mark.parametrize("shape", [(64, 128), (40, 48), (130, 256)], ids=str)
def test_nvfp4_has_its_values_in_comfyuis_layout(found, normal, shape):
    tensors, dense = nvfp4(normal(*shape))
    foreign, files = found({**tensors, "layer.bias": torch.zeros(shape[0])})
    layer = foreign.layers["layer"]
    assert layer.shape == shape and layer.origin == "ModelOpt NVFP4"
    assert foreign.plain == ("layer.bias",)
    assert torch.equal(layer.read(files, torch.float32).dequantize(), dense)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: t.pop("layer.weight"), "has layer.weight_scale, but no layer.weight"),
        (lambda t: t.pop("layer.weight_scale_2"), "lacks layer.weight_scale_2"),
        (lambda t: t.update({"layer.weight_scale_2": torch.ones(3)}), "not one number"),
        (lambda t: t.update({"x.input_scale": torch.ones(())}), "belongs to no quantized layer"),
        (
            lambda t: t.update({"layer.weight_scale": t["layer.weight_scale"][:3]}),
            "has layer.weight_scale as",
        ),
        (lambda t: t.update({"layer.weight": torch.zeros(4, 8).int()}), "nothing says how"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_contradicts_itself_is_refused_in_one_line(found, normal, change, fault):
    tensors, _ = nvfp4(normal(64, 128))
    change(tensors)
    with pytest.raises(QuantizationError) as error:
        found(tensors)
    assert fault in str(error.value) and "\n" not in str(error.value)


def test_comfyuis_own_files_are_not_taken_for_modelopts(found, normal):
    tensors, _ = float8(normal(40, 96))
    marker = torch.frombuffer(bytearray(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    assert found({**tensors, "layer.comfy_quant": marker})[0] is None
    assert found(tensors, {"_quantization_metadata": "{}"})[0] is None
    assert found({"layer.weight": normal(4, 4)})[0] is None
