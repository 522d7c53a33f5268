"""One Linear layer in every way that it can be computed: ours, torchao's, stock ComfyUI's."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator

import torch
from torch import nn

PLAIN = "bf16"


def layers(
    inputs: int, outputs: int, device: torch.device, every_format: bool = False
) -> Iterator[tuple[str, nn.Module | Exception]]:
    """Name and layer, or why there is none; ``PLAIN`` comes first. every_format: all methods of the
    choice, without other libraries. ComfyUI and the pack are imported."""
    import comfy.ops

    plain = comfy.ops.disable_weight_init.Linear(
        inputs, outputs, dtype=torch.bfloat16, device=device
    )
    generator = torch.Generator(device).manual_seed(0)
    for parameter in plain.parameters():
        parameter.requires_grad_(False).normal_(0, 0.02, generator=generator)
    yield PLAIN, plain
    for name, build in (_formats() if every_format else _builders(device)).items():
        try:
            yield name, build(plain)
        except Exception as problem:  # other people's libraries say no by any type
            yield name, problem


def _formats() -> dict:
    from graphquant.quant_core.methods import MEASURED, METHODS

    names = [name for name in METHODS if name not in ("none", *MEASURED)]
    return {name: lambda layer, name=name: _ours(layer, name) for name in names}


def _builders(device: torch.device) -> dict:
    from graphquant.quant_core.hardware import hardware_of
    from graphquant.quant_core.methods import method_for

    ours = ("fp8-dynamic", "fp8-weight-only", "int8", "int8-dynamic", "int8-convrot", "int4")
    ours += ("nf4", "nf4-fine")
    hardware = hardware_of(device)
    ours = [name for name in ours if method_for(name, hardware)[1] is None]
    torchaos = ("fp8", "fp8 dynamic", "int8", "int8 dynamic")
    return {
        **{name: lambda layer, name=name: _ours(layer, name) for name in ours},
        **(_other_ways(device, ours) if device.type == "cuda" else {}),
        "layerwise": _layerwise,
        **{f"torchao {n}": lambda layer, n=n: _torchao(layer, n) for n in torchaos},
        "stock fp8 scaled": lambda layer: _stock(layer, "float8_e4m3fn"),
        "stock int8": lambda layer: _stock(layer, "int8_tensorwise"),
        "stock fp8_e4m3fn_fast": _stock_fast,
    }


def _other_ways(device: torch.device, ours: list[str]) -> dict:
    """Ways that this GPU would not take by itself: what it costs where they are all there is."""
    from graphquant.nodes.bridge.tensor import contest
    from graphquant.quant_core.formats import Int8
    from graphquant.quant_core.kernels import dispatch, float8_way, race

    device = dispatch.with_index(device)
    library = {device: _AlwaysTheLibrary()}
    kitchen = {(Int8(activations="int8"), False, device): True}
    not_kitchen = {(Int8(activations="int8"), False, device): False}
    ways = {
        "fp8-dynamic, no Triton": ("fp8-dynamic", dispatch.TRITON_WORKS, {device: False}),
        "fp8-dynamic, tensor-wise": ("fp8-dynamic", float8_way.WAYS, {device: "tensor-wise"}),
        "fp8-dynamic, by library": ("fp8-dynamic", race.ANSWERS, library),
        "int8-dynamic, no Triton": ("int8-dynamic", dispatch.TRITON_WORKS, {device: False}),
        "int8-dynamic, by library": ("int8-dynamic", race.ANSWERS, library),
        "int8-dynamic, kitchen": ("int8-dynamic", contest._verdicts, kitchen),
        "int8-dynamic, ours": ("int8-dynamic", contest._verdicts, not_kitchen),
    }
    return {
        name: lambda layer, method=method, known=known, forced=forced: Forced(
            _ours(layer, method), known, forced
        )
        for name, (method, known, forced) in ways.items()
        if method in ours
    }


class _AlwaysTheLibrary(dict):
    def get(self, asked: str, default: object = None) -> str:
        return "library" if not asked.startswith("weight-only") else "decoded"


class Forced(nn.Module):
    """A layer that computes under other verdicts about its GPU. known: where they are kept."""

    def __init__(self, layer: nn.Module, known: dict, forced: dict):
        super().__init__()
        self.layer, self.known, self.forced = layer, known, forced

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Each verdict is put back afterwards."""
        before = {key: self.known[key] for key in self.forced if key in self.known}
        self.known.update(self.forced)
        try:
            return self.layer(x)
        finally:
            for key in self.forced:
                self.known.pop(key)
            self.known.update(before)


def _ours(layer: nn.Module, method: str) -> nn.Module:
    from graphquant.nodes.bridge.tensor.quantized_layer import quantize_layer
    from graphquant.quant_core.methods import METHODS

    layer = _copied(layer)
    fmt = METHODS[method].choose(tuple(layer.weight.shape), "per-row").format
    quantize_layer(layer, fmt.quantize(layer.weight.detach()), layer.weight.dtype)
    return layer


def _layerwise(layer: nn.Module) -> nn.Module:
    from graphquant.quant_core import apply_layerwise_casting

    model = nn.Sequential(_copied(layer))
    apply_layerwise_casting(model)
    return model


def _torchao(layer: nn.Module, name: str) -> nn.Module:
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        Float8WeightOnlyConfig,
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        PerRow,
        quantize_,
    )

    quiet = {"set_inductor_config": False}  # it would change the whole process
    config = {
        "fp8": Float8WeightOnlyConfig(**quiet),
        "fp8 dynamic": Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), **quiet),
        "int8": Int8WeightOnlyConfig(**quiet),
        "int8 dynamic": Int8DynamicActivationInt8WeightConfig(**quiet),
    }[name]
    plain = nn.Linear(layer.in_features, layer.out_features, device="meta", dtype=torch.bfloat16)
    plain.weight, plain.bias = layer.weight, layer.bias
    # In inference mode its tensors can't be moved.
    with torch.inference_mode(False), torch.no_grad():
        model = nn.Sequential(_normal(plain))
        quantize_(model, config)
    return model


def _normal(layer: nn.Module) -> nn.Module:
    """Over copies that were made outside inference mode."""
    for name, parameter in list(layer.named_parameters()):
        setattr(layer, name, nn.Parameter(parameter.detach().clone(), requires_grad=False))
    return layer


def _stock(layer: nn.Module, kind: str) -> nn.Module:
    """As ComfyUI loads a quantized checkpoint."""
    import comfy.ops

    from graphquant.quant_core.formats import Float8, Int8

    fmt = Int8() if kind == "int8_tensorwise" else Float8(granularity="per-tensor")
    weight = fmt.quantize(layer.weight.detach())
    text = json.dumps({"format": kind}).encode()
    ops = comfy.ops.mixed_precision_ops({}, torch.bfloat16)
    stock = ops.Linear(layer.in_features, layer.out_features, device=layer.weight.device)
    state = {
        "weight": weight.qdata,
        "weight_scale": weight.scale,
        "bias": layer.bias,
        "comfy_quant": torch.frombuffer(bytearray(text), dtype=torch.uint8),
    }
    stock.load_state_dict(state, strict=False)
    return stock.to(layer.weight.device)


def _stock_fast(layer: nn.Module) -> nn.Module:
    """As Load Diffusion Model does with weight_dtype fp8_e4m3fn_fast."""
    import comfy.ops

    stock = comfy.ops.fp8_ops.Linear(layer.in_features, layer.out_features, device="meta")
    stock.weight = nn.Parameter(layer.weight.to(torch.float8_e4m3fn), requires_grad=False)
    stock.bias = layer.bias
    stock.comfy_cast_weights = True
    return stock


def _copied(layer: nn.Module) -> nn.Module:
    return copy.deepcopy(layer)  # a shallow copy would share the dictionary of its hooks
