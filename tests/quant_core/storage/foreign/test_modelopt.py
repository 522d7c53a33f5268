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


@pytest.mark.parametrize("scale_shape", [(), (48,), (48, 1)], ids=str)
def test_fp8_has_its_values_with_a_scale_a_tensor_or_a_row(found, normal, scale_shape):
    tensors, dense = float8(normal(48, 96), scale_shape)
    foreign, files = found({**tensors, "layer.input_scale": torch.tensor(0.5)})
    layer = foreign.layers["layer"]
    read = layer.read(files, torch.float32)
    assert torch.equal(read.dequantize(), dense)
    assert foreign.plain == () and len(layer.tensors) == 3
    static = scale_shape == ()
    assert ("static scale" in str(layer.format)) == static
    assert (read.input_scale is not None) == static
    assert ("without its scale of activations" in layer.origin) != static


@pytest.mark.parametrize("shape", [(64, 128), (40, 48), (130, 256)], ids=str)
def test_nvfp4_has_its_values_in_comfyuis_layout(found, normal, shape):
    tensors, dense = nvfp4(normal(*shape))
    foreign, files = found({**tensors, "layer.bias": torch.zeros(shape[0])})
    layer = foreign.layers["layer"]
    assert layer.shape == shape and layer.origin.startswith("ModelOpt NVFP4")
    assert foreign.plain == ("layer.bias",)
    assert torch.equal(layer.read(files, torch.float32).dequantize(), dense)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_of_activations_that_is_none_is_refused(found, normal, value):
    tensors, _ = float8(normal(40, 96))
    with pytest.raises(QuantizationError, match="which is not a positive number"):
        found({**tensors, "layer.input_scale": torch.tensor(value)})


def test_calibrated_activations_are_rounded_by_their_scale(found, normal):
    tensors, dense = float8(normal(48, 96))
    foreign, files = found({**tensors, "layer.input_scale": torch.tensor(0.01)})
    weight = foreign.layers["layer"].read(files, torch.float32)
    x = normal(8, 96, std=1.0, seed=3)
    rounded = (x / 0.01).clamp(-448, 448).to(torch.float8_e4m3fn).float() * 0.01
    y = weight.format.linear(x, weight, None)
    assert torch.allclose(y, rounded @ dense.T, atol=1e-5)
    assert not torch.allclose(y, x @ dense.T, atol=1e-3)


@pytest.mark.parametrize("shape", [(40, 96), (48, 96)], ids=str)
def test_where_fp8_cannot_be_multiplied_the_layer_is_weight_only(tmp_path, normal, shape):
    from safetensors.torch import save_file

    from graphquant.quant_core.storage import TensorFiles
    from graphquant.quant_core.storage.foreign import find_foreign

    tensors, dense = float8(normal(*shape))
    save_file({**tensors, "layer.input_scale": torch.tensor(0.01)}, tmp_path / "f.safetensors")
    with TensorFiles(tmp_path / "f.safetensors") as files:
        layer = find_foreign(files, fp8_matmul=shape[0] % 16 != 0).layers["layer"]
        read = layer.read(files, torch.float32)
    assert str(read.format) == "float8_e4m3fn per-tensor"
    assert layer.origin == "ModelOpt FP8, weight-only" and len(layer.tensors) == 3
    assert torch.equal(read.dequantize(), dense)


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
    assert found(tensors, {"_quantization_metadata": '{"layers": {}}'})[0] is None
    assert found({"layer.weight": normal(4, 4)})[0] is None
