"""ComfyUI's quantized files: what it would load wrongly without a word is refused."""

import json

import pytest
import torch
from safetensors.torch import save_file

from graphquant.quant_core.errors import StorageError
from graphquant.quant_core.storage import TensorFiles, check_stock_layers, marker_tensor

FP8 = torch.ones(4, 8).to(torch.float8_e4m3fn)
INT8 = torch.ones(4, 8, dtype=torch.int8)
SCALE = torch.tensor(0.5)


def check(tmp_path, tensors, metadata=None, others=()):
    tensors = {name: t if isinstance(t, torch.Tensor) else marker_tensor(t) for name, t in tensors}
    save_file(tensors, tmp_path / "m.safetensors", metadata)
    with TensorFiles(tmp_path / "m.safetensors") as files:
        return check_stock_layers(files, others)


def layer(weight, mark, name="a", **scales):
    tensors = {f"{name}.weight": weight, f"{name}.comfy_quant": mark}
    return (tensors | {f"{name}.{scale}": value for scale, value in scales.items()}).items()


@pytest.mark.parametrize(
    "tensors, name",
    [
        (layer(FP8, {"format": "float8_e4m3fn"}, weight_scale=SCALE), "float8_e4m3fn"),
        (layer(INT8, {"format": "int8_tensorwise"}, weight_scale=SCALE), "int8_tensorwise"),
        (
            layer(INT8, {"format": "int8_tensorwise"}, weight_scale=torch.ones(4, 1)),
            "int8_tensorwise",
        ),
        (layer(INT8, {"format": "of_the_future"}), "of_the_future"),
    ],
)
def test_a_marker_that_holds_is_reported(tmp_path, tensors, name):
    assert check(tmp_path, tensors) == {"a": name}


def test_metadata_mark_layers_as_tensors_do_with_and_without_a_checkpoints_prefix(tmp_path):
    marks = json.dumps({"format_version": "1.0", "layers": {"a": {"format": "float8_e4m3fn"}}})
    for prefix in ("", "model.diffusion_model."):
        tensors = {f"{prefix}a.weight": FP8, f"{prefix}a.weight_scale": SCALE}
        found = check(tmp_path, tensors.items(), {"_quantization_metadata": marks})
        assert found == {f"{prefix}a": "float8_e4m3fn"}


def test_the_older_kind_of_scaled_fp8_is_known(tmp_path):
    tensors = {"scaled_fp8": FP8[:0], "a.weight": FP8, "a.scale_weight": SCALE}
    assert check(tmp_path, tensors.items()) == {"a": "float8_e4m3fn"}


def test_plain_files_have_no_such_layers(tmp_path):
    assert check(tmp_path, {"a.weight": FP8, "b.weight": torch.ones(2, 2)}.items()) == {}


def test_scales_of_other_formats_are_left_alone(tmp_path):
    tensors = {"a.weight": FP8, "a.weight_scale": torch.ones(4, 1)}
    assert check(tmp_path, tensors.items(), others={"a"}) == {}


@pytest.mark.parametrize(
    "tensors, fault",
    [
        (layer(FP8, {"format": "float8_e4m3fn"}), "has no a.weight_scale"),
        (layer(INT8, {"format": "int8_tensorwise"}), "has no a.weight_scale"),
        (layer(FP8, {"format": "int8_tensorwise"}, weight_scale=SCALE), "but its weight is"),
        (layer(INT8, {"format": "float8_e4m3fn"}, weight_scale=SCALE), "but its weight is"),
        (
            layer(FP8, {"format": "float8_e4m3fn"}, weight_scale=torch.ones(4, 1)),
            r"of shape \[4, 1\], wrong for",
        ),
        (
            layer(INT8, {"format": "int8_tensorwise"}, weight_scale=torch.ones(3)),
            r"of shape \[3\], wrong for",
        ),
        (layer(INT8, {"format": 8}), "names no format"),
        (layer(INT8, {}), "names no format"),
        (layer(INT8, [1]), "not a JSON object"),
        (layer(INT8, torch.zeros(9, dtype=torch.uint8)), "not JSON"),
        ({"a.comfy_quant": {"format": "int8_tensorwise"}}.items(), "has no a.weight"),
        ({"a.weight": FP8, "a.weight_scale": SCALE}.items(), "nothing says how a is quantized"),
        ({"a.weight": FP8, "a.scale_weight": SCALE}.items(), "nothing says how a is quantized"),
        ({"a.weight": FP8, "a.weight_scale_inv": SCALE}.items(), "nothing says how"),
        ({"scaled_fp8": FP8[:0], "a.scale_weight": SCALE}.items(), "but no a.weight"),
    ],
)
def test_a_promise_that_the_file_breaks_is_refused(tmp_path, tensors, fault):
    with pytest.raises(StorageError, match=fault):
        check(tmp_path, tensors)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"layers": []}', '{"layers": {"a": 3}}', '{"layers": {"b": {}}}']
)
def test_metadata_that_are_none_are_refused(tmp_path, text):
    with pytest.raises(StorageError):
        check(tmp_path, {"a.weight": FP8}.items(), {"_quantization_metadata": text})
