"""Files as other libraries write them, of plain tensors: whose blocks' matrices are quantized.

A writer skips the test that calls it where its library is not installed.
"""

from __future__ import annotations

import json

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


def convrot(tensors, path, marker=None, scale=None, params=False):
    """INT8 with ConvRot as convert_to_quant writes it; ``marker`` changes what it says."""
    from comfy_kitchen.backends.eager.quantization import quantize_int8_convrot_weight

    out = dict(tensors)
    for name, tensor in tensors.items():
        if is_linear(name, tensor):
            codes, steps = quantize_int8_convrot_weight(tensor.float(), 64)
            out[name], out[f"{name}_scale"] = codes, steps if scale is None else scale(steps)
            said = {"format": "int8_tensorwise", "orig_dtype": "torch.bfloat16", "per_row": True}
            options = {"convrot": True, "convrot_groupsize": 64}
            said |= {"params": options} if params else options
            said = {k: v for k, v in {**said, **(marker or {})}.items() if v is not None}
            text = bytearray(json.dumps(said).encode())
            out[name.replace("weight", "comfy_quant")] = torch.frombuffer(text, dtype=torch.uint8)
    save_file(out, path)


def nvfp4(tensors, path, layers=is_linear, others=None):
    """NVFP4 as ComfyUI's own files have it: codes, block scales, a scale of the whole weight, and
    a marker. layers(name, tensor) says which; ``others`` are entries of further layers."""
    from graphquant.quant_core.formats import NVFP4

    out = {**tensors, **(others or {})}
    for name, tensor in tensors.items():
        if layers(name, tensor):
            stored, layer = NVFP4().quantize(tensor), name.removesuffix(".weight")
            out |= {name: stored.qdata, f"{name}_scale": stored.scale}
            out |= {f"{name}_scale_2": stored.scale_2, f"{layer}.comfy_quant": marker("nvfp4")}
    save_file(out, path)


def marker(kind):
    """ComfyUI's marker of a layer's format, as a tensor."""
    text = bytearray(json.dumps({"format": kind}).encode())
    return torch.frombuffer(text, dtype=torch.uint8)


def w4a8(tensors, path, as_octets=False, correction=False):
    """asym_w4a8_int8 with its markers in the metadata, as comfy-quants and others write it. The
    codes are of this pack's quantizer: comfy-kitchen 0.2.26 has none."""
    from graphquant.quant_core.formats.rotated_groups import rotated_groups

    out, layers = dict(tensors), {}
    for name, tensor in tensors.items():
        if is_linear(name, tensor):
            stored = rotated_groups(4).quantize(tensor)
            scale = stored.scale.view(torch.uint8) if as_octets else stored.scale
            out |= {name: stored.qdata, f"{name}_s_rel": scale}
            out |= {f"{name}_s_channel": stored.scale_2, f"{name}_codebook": stored.codebook}
            if correction:
                out[f"{name}_correction"] = torch.zeros(stored.scale.shape[::-1])
            layers[name.removesuffix(".weight")] = {
                "format": "asym_w4a8_int8", "group_size": 16, "convrot": True,
                "convrot_groupsize": 256,
            }  # fmt: skip
    metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
    save_file(out, path, metadata)
