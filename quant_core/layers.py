"""Which modules carry a weight that this package can quantize."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from .errors import ModuleError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

COMPONENT_TYPES = ("encoder", "transformer", "vae")

TABLE = "Table"
# Weights of a table from which on it is worth a format: 32 MiB in bfloat16. Smaller ones, such as
# positions, are read by their modules in more ways than by looking rows up.
_LARGE_TABLE = 2**24


def layer_kind(module: nn.Module) -> str | None:
    """ "Linear", "Conv1d", "Conv2d", "Conv3d", or None.

    A Linear need not derive from torch's own (ComfyUI's mixed-precision one does not): a 2-d weight
    beside in_features and out_features is what counts, or one of bitsandbytes in 4 bits. Not
    nn.MultiheadAttention's out_proj: the attention multiplies by its weight without calling it.
    """
    weight = getattr(module, "weight", None)
    if weight is None or isinstance(module, NonDynamicallyQuantizableLinear):
        return None
    if isinstance(module, CONVOLUTIONS):
        return next(cls.__name__ for cls in CONVOLUTIONS if isinstance(module, cls))
    is_linear = hasattr(module, "in_features") and hasattr(module, "out_features")
    is_linear |= len(getattr(getattr(weight, "quant_state", None), "shape", ())) == 2
    return "Linear" if is_linear and weight.dim() == 2 else None


def is_large_table(module: nn.Module) -> bool:
    """Whether ``module`` is an embedding, whose rows are looked up, of 16 million weights or
    more."""
    weight = module._parameters.get("weight")
    is_table = hasattr(module, "num_embeddings") and hasattr(module, "embedding_dim")
    return is_table and weight is not None and weight.dim() == 2 and weight.numel() >= _LARGE_TABLE


def require_module(model: object, argument: str = "model") -> None:
    """ModuleError where ``model``, which was given as ``argument``, is not an nn.Module."""
    if not isinstance(model, nn.Module):
        raise ModuleError(
            f"{argument} is a {type(model).__name__}, not an nn.Module. Give the module itself, "
            "such as pipeline.transformer."
        )


def supported_layers(
    model: nn.Module, component_type: str, convolutions: bool = False, tables: bool = False
) -> Iterator[tuple[str, str, nn.Module]]:
    """(name, kind, module) of every layer considered: Linear, convolutions in a VAE or where
    ``convolutions`` asks for them, and large embeddings (kind TABLE) where ``tables`` does."""
    for name, module in model.named_modules():
        if tables and is_large_table(module):
            yield name, TABLE, module
            continue
        kind = layer_kind(module)
        if kind == "Linear" or (kind is not None and (component_type == "vae" or convolutions)):
            yield name, kind, module


def submodule(model: nn.Module, name: str) -> nn.Module:
    """The module of ``model`` called ``name``, as ``named_modules`` tells it; "" is ``model``.

    It is found also where it is called like a method of nn.Module, such as "half". KeyError for a
    name that no module has.
    """
    for part in filter(None, name.split(".")):
        model = model._modules[part]
    return model


def is_fp8_compatible_layer(module: nn.Module) -> bool:
    """Whether an FP8 x FP8 matmul can run this layer: a Linear with K and N in sixteens."""
    from .formats.float8 import fits_scaled_mm

    return layer_kind(module) == "Linear" and fits_scaled_mm(tuple(module.weight.shape))
