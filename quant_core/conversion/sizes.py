"""What each method would make of a model, a file's from its header alone: sizes, before anything is
loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from ..detect import module_bytes
from ..errors import QuantizationError, UnknownNameError, require_kind
from ..layers import COMPONENT_TYPES, CONVOLUTIONS
from ..methods import SIZED, named_method
from ..planning.plan import plan_component
from ..storage import TensorSpec
from .convert import ANY_HARDWARE, AUTO, GENERIC
from .estimation import Estimate, estimate_of
from .source import ModelFile, is_linear, matrix_of_file, open_model, put_layer

# What stands before the names of a component in a whole checkpoint.
_INSIDE = {
    "encoder": ("text_encoders.", "cond_stage_model.", "conditioner.embedders."),
    "vae": ("first_stage_model.", "vae."),
}
_HALVES = ("encoder.", "decoder.", "taesd_encoder.", "taesd_decoder.")


@dataclass(frozen=True)
class Sizes:
    """The sizes of one component. nbytes: as it is. architecture: as ``recognise`` names it, or
    "unknown". methods: each with its own size."""

    component: str
    architecture: str
    nbytes: int
    methods: tuple[Estimate, ...]

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)


def estimate(
    source: str | Path | nn.Module,
    methods: str | Iterable[str] | None = None,
    component_type: str | None = None,
    granularity: str = "per-row",
    *,
    preset: str | None = AUTO,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] | None = None,
) -> Sizes:
    """The sizes of a model, or of one component of the file ``source``, by each of ``methods``.

    methods: names, or one name; default, all whose size a name alone tells. component_type:
    "transformer", "encoder" or "vae"; None for what the file holds first, in a checkpoint its
    diffusion model. Of an encoder a method that rounds activations is its weight-only counterpart,
    as in Quantize Text Encoder. What is wrong with one method is its ``problem``; StorageError
    where the file cannot be read.
    """
    if component_type is not None and component_type not in COMPONENT_TYPES:
        raise UnknownNameError("component type", component_type, COMPONENT_TYPES)
    remedy = "Give the path of a model file, or an nn.Module."
    require_kind("source", source, (str, Path, nn.Module), remedy)
    methods = () if methods is None else methods
    require_kind("methods", methods, (str, Iterable), "Give a method's name, or several.")
    options = {"granularity": granularity, "include": include, "exclude": exclude}
    methods = (methods,) if isinstance(methods, str) else methods
    chosen = tuple(methods or SIZED)
    if isinstance(source, nn.Module):
        component = component_type or "transformer"
        kept = GENERIC if preset == AUTO and component == "transformer" else preset
        options["preset"] = None if kept == AUTO else kept
        return _sizes(source, component, "unknown", module_bytes(source), chosen, options)
    with open_model(source) as model:
        component, prefix = _component_of(model, component_type)
        specs = {
            name.removeprefix(prefix): spec
            for name, spec in model.files.specs.items()
            if name.startswith(prefix)
        }
        own = component == model.model.component and prefix == model.model.prefix
        known = model.model.preset if own else None
        generic = GENERIC if component == "transformer" else None
        options["preset"] = (known or generic) if preset == AUTO else preset
        nbytes = sum(spec.nbytes for spec in specs.values())
        architecture = model.model.architecture if own else "unknown"
        tree, options["tables"] = _tree(specs, component), True
        return _sizes(tree, component, architecture, nbytes, chosen, options)


def _sizes(
    tree: nn.Module,
    component: str,
    architecture: str,
    nbytes: int,
    methods: Iterable[str],
    options: dict,
) -> Sizes:
    found = tuple(_estimate(tree, component, method, nbytes, options) for method in methods)
    return Sizes(component, architecture, nbytes, found)


def _estimate(tree: nn.Module, component: str, method: str, nbytes: int, options: dict) -> Estimate:
    try:
        runs = named_method(method).method
        if component == "encoder" and runs.weight_only:
            runs = named_method(runs.weight_only).method
        plan = plan_component(tree, runs.name, component, hardware=ANY_HARDWARE, **options)
    except QuantizationError as error:
        return Estimate(method, problem=str(error))
    return estimate_of(method, plan, nbytes)


def _component_of(model: ModelFile, asked: str | None) -> tuple[str, str]:
    """The component of the file to estimate, and the prefix of its names."""
    found, names = model.model, list(model.files.specs)
    is_vae = found.architecture == "unknown" and any(
        name.startswith(_HALVES) and len(spec.shape) > 2 for name, spec in model.files.specs.items()
    )
    component = asked or ("vae" if is_vae else found.component)
    if component == found.component and not is_vae:
        return component, found.prefix
    inside = (
        prefix
        for prefix in _INSIDE.get(component, ())
        if any(name.startswith(prefix) for name in names)
    )
    return component, next(inside, "")


def _tree(specs: dict[str, TensorSpec], component: str) -> nn.Module:
    """The layers of a component on the meta device."""
    root = nn.Module()
    for name, spec in specs.items():
        layer = name.removesuffix(".weight")
        if is_linear(name, spec):
            put_layer(root, layer, matrix_of_file(layer, spec))
        elif component == "vae" and name.endswith(".weight") and 3 <= len(spec.shape) <= 5:
            put_layer(root, layer, _convolution(spec))
    return root


def _convolution(spec: TensorSpec) -> nn.Module:
    """Stands for a convolution of a file: shape and dtype of its weight."""
    kind = CONVOLUTIONS[len(spec.shape) - 3]
    layer = kind(1, 1, 1, bias=False, device="meta")
    weight = torch.empty(spec.shape, dtype=spec.dtype, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer
