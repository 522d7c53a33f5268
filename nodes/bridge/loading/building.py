"""A MODEL by ComfyUI's own loader, whose quantized layers are attached when it is done.

The loader recognises the model and reads what is not quantized. The quantized layers it sees as
placeholders, so that their full-precision weights never exist.

Tested by tests/nodes/bridge/loading/test_load_model.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import comfy.model_detection
import comfy.sd
import torch
from comfy.model_management import OOM_EXCEPTION
from comfy.model_patcher import ModelPatcher
from comfy.supported_models_base import BASE
from torch import nn

from ....quant_core.errors import StorageError
from ....quant_core.layers import is_large_table, layer_kind
from ..model.float_weight import MODEL
from ..model.quantize_patcher import with_weights
from ..tensor.placeholder import Placeholder
from .layers_in_file import Contents, LayerInFile

# Parts of names that diffusers gives and the models' authors do not.
_DIFFUSERS = (
    "x_embedder.",
    "single_transformer_blocks.",
    "down_blocks.",
    "joint_transformer_blocks.",
)


_WEIGHT = ".weight"


def build_model(
    file: str,
    contents: Contents,
    metadata: Mapping[str, str],
    dtype: torch.dtype | None = None,
) -> ModelPatcher:
    """The model of a file's ``contents``, whose plain tensors are used up and whose quantized
    layers are read one at a time.

    dtype: what the quantized weights were; by default what most others are. StorageError, naming
    ``file``: ComfyUI knows no such model, or something is missing.
    """
    state, layers = contents.state, contents.layers
    dtype = dtype or _common_dtype(state)
    stand_ins = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    _require_recognised(file, contents, metadata)
    placeholders = _placeholders(layers, dtype)
    state |= placeholders
    try:
        patcher = comfy.sd.load_diffusion_model_state_dict(state, metadata=dict(metadata))
        names = renamed(patcher.model.model_config, stand_ins | placeholders)
    except NotImplementedError as error:  # a Placeholder's
        raise StorageError(
            f"{file} can't be loaded quantized: ComfyUI takes some weights of this model apart. "
            "Load the original, and quantize it in the graph."
        ) from error
    except OOM_EXCEPTION:
        raise
    except RuntimeError as error:
        told = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise StorageError(
            f"{file} is not what ComfyUI takes it for. {told[:300]} Choose another file, or save "
            "it again from the original."
        ) from error
    places = {
        old.removesuffix(_WEIGHT): new.removesuffix(_WEIGHT)
        for new, old in names.items()
        if old in placeholders
    }
    _require_complete(file, patcher, names, {places.get(n, n): layers[n].shape for n in layers})
    return _attach(patcher, places, layers)


def is_recognised(contents: Contents, metadata: Mapping[str, str]) -> bool:
    """Whether ComfyUI knows a model by the names and shapes of these tensors and layers."""
    seen = {**contents.state, **_placeholders(contents.layers, torch.bfloat16)}
    config = comfy.model_detection.model_config_from_unet(seen, "", metadata=dict(metadata))
    return config is not None


def _placeholders(layers: Mapping[str, LayerInFile], dtype: torch.dtype) -> dict[str, Placeholder]:
    return {name + _WEIGHT: Placeholder(layer.shape, dtype) for name, layer in layers.items()}


def _attach(
    patcher: ModelPatcher, places: Mapping[str, str], layers: Mapping[str, LayerInFile]
) -> ModelPatcher:
    """places: the file's name of each quantized layer -> the model's."""
    compute_dtype = patcher.model.get_dtype_inference()
    weights = {}
    for old, name in places.items():
        weight = layers[old].read(compute_dtype)
        module = patcher.model.diffusion_model.get_submodule(name)
        # a small embedding, say, which may be read in other ways than by rows
        if layer_kind(module) is None and not is_large_table(module):
            dense = weight.dequantize(patcher.model.get_dtype())
            module.weight = nn.Parameter(dense, requires_grad=False)
        else:
            weights[MODEL + name] = weight
    return with_weights(patcher, weights, compute_dtype)


def renamed(config: BASE, state: Mapping[str, torch.Tensor]) -> dict[str, str | None]:
    """ComfyUI's name of each tensor that it loads -> the name in ``state``; None where it is made
    of others. Some models' authors name some layers otherwise."""
    names = {id(tensor): name for name, tensor in state.items()}
    loaded = config.process_unet_state_dict(dict(state))
    return {name: names.get(id(tensor)) for name, tensor in loaded.items()}


def model_prefix(names: Collection[str]) -> str:
    """The prefix that ComfyUI strips off a file's names; it leaves out tensors without it."""
    prefix = comfy.model_detection.unet_prefix_from_state_dict(names)
    return prefix if any(name.startswith(prefix) for name in names) else ""


def _common_dtype(state: Mapping[str, torch.Tensor]) -> torch.dtype:
    """The dtype of most unquantized weights: by it ComfyUI chooses what to compute in."""
    counts: Counter[torch.dtype] = Counter()
    for tensor in state.values():
        if tensor.is_floating_point() and tensor.dtype.itemsize > 1:
            counts[tensor.dtype] += tensor.numel()
    return counts.most_common(1)[0][0] if counts else torch.bfloat16


def _require_recognised(file: str, contents: Contents, metadata: Mapping[str, str]) -> None:
    if is_recognised(contents, metadata):
        return
    names = (*contents.state, *(name + _WEIGHT for name in contents.layers))
    foreign = next((name for name in names if name.startswith(_DIFFUSERS)), None)
    if foreign is None:
        raise StorageError(f"ComfyUI does not recognise the model in {file}. Update ComfyUI.")
    raise StorageError(
        f"{file} names its layers as diffusers does ({foreign}), which ComfyUI cannot load. "
        "Choose a file with the original names, or quantize the original."
    )


def require_weights(file: str, model: nn.Module, names: Collection[str]) -> dict[str, nn.Parameter]:
    """The parameters of ``model`` by name. StorageError where some are not among ``names``, which
    ``file`` gives: ComfyUI only warns, and leaves them unset."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    missing = sorted(parameters.keys() - set(names))
    if missing:
        raise StorageError(
            f"{file} lacks {len(missing)} weights of {type(model).__name__}, such as "
            f"{missing[0]}. Download or save it again."
        )
    return parameters


def _require_complete(
    file: str,
    patcher: ModelPatcher,
    names: Collection[str],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Raises StorageError where weights are missing or of another shape."""
    model = patcher.model.diffusion_model
    parameters = require_weights(file, model, names)
    for name, shape in shapes.items():
        weight = parameters.get(f"{name}.weight")
        if weight is None or tuple(weight.shape) != shape:
            raise StorageError(
                f"{file} has a quantized {name} of {list(shape)}, which "
                f"{type(model).__name__} has not. Download or save it again."
            )
