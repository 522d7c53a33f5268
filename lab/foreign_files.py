"""Files as other libraries write them, of plain tensors: whose blocks' matrices are quantized.

A writer skips the test that calls it where its library is not installed.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file


def is_linear(name, tensor):
    return tensor.dim() == 2 and "blocks" in name and name.endswith(".weight")


def nf4(tensors, path):
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    out = {}
    for name, tensor in tensors.items():
        if not is_linear(name, tensor):
            out[name] = tensor
            continue
        packed, state = bnb.functional.quantize_4bit(
            tensor, quant_type="nf4", compress_statistics=True
        )
        out[name] = packed
        parts = state.as_dict(packed=True)
        out |= {f"{name}.{part}": value.reshape(-1) for part, value in parts.items()}
    save_file(out, path)


def bnb_int8(tensors, path):
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    out = dict(tensors)
    for name, tensor in tensors.items():
        if is_linear(name, tensor):
            out[name], scb, _ = bnb.functional.int8_vectorwise_quant(tensor.half())
            out[name.replace(".weight", ".SCB")] = scb
            out[name.replace("weight", "weight_format")] = torch.tensor(0, dtype=torch.uint8)
    save_file(out, path)


def torchao(tensors, path):
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import Int8Tensor, PerRow

    quantized = {
        name: Int8Tensor.from_hp(tensor, PerRow()) if is_linear(name, tensor) else tensor
        for name, tensor in tensors.items()
    }
    flat, metadata = flatten_tensor_state_dict(quantized)
    save_file(flat, path, metadata)


def modelopt_fp8(tensors, path):
    out = dict(tensors)
    for name, tensor in tensors.items():
        if is_linear(name, tensor):
            scale = tensor.float().abs().max() / 448
            out[name] = (tensor.float() / scale).to(torch.float8_e4m3fn)
            out[f"{name}_scale"] = scale
            out[name.replace(".weight", ".input_scale")] = torch.tensor(0.1)
    save_file(out, path)


def gguf_file(tensors, path, kind="Q8_0", blocks=()):
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    writer = gguf.GGUFWriter(path, "flux")
    for name, tensor in tensors.items():
        plain = tensor.dim() != 2 and name not in blocks
        number = gguf.GGMLQuantizationType.F32 if plain else gguf.GGMLQuantizationType[kind]
        data = gguf.quantize(tensor.float().numpy(), number)
        writer.add_tensor(name, data, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
