"""A file's names and shapes tell the same preset, and the same layers, as ComfyUI's own classes."""

from types import SimpleNamespace

import pytest

from graphquant.nodes.bridge.architecture.detected import (
    encoder_preset_name,
    preset_name,
    sub_encoders,
)
from graphquant.quant_core.conversion.source import ModelFile
from graphquant.quant_core.layers import supported_layers
from graphquant.quant_core.presets import recognise
from graphquant.quant_core.presets.signatures import DIFFUSION_MODELS, TEXT_ENCODERS
from graphquant.quant_core.storage import TensorSpec
from lab.architectures import TREES, UNLISTED_TREES, base_model, text_encoder
from lab.architectures.encoders import _ENCODERS

pytestmark = pytest.mark.usefixtures("comfy")


def as_file(module):
    """The module's state dict as the specs that a file of it would have."""
    return {
        name: TensorSpec(name, tensor.dtype, tuple(tensor.shape))
        for name, tensor in module.state_dict().items()
    }


def layers_of(module, component):
    layers = supported_layers(module, component, tables=True)
    return {(name, kind) for name, kind, _ in layers}


def check(module, component, preset):
    specs = as_file(module)
    found = recognise({name: spec.shape for name, spec in specs.items()})
    assert (found.component, found.preset) == (component, preset)
    planned = ModelFile(SimpleNamespace(specs=specs), found).layers()
    assert layers_of(planned, component) == layers_of(module, component)


@pytest.mark.parametrize("name", [*TREES, *UNLISTED_TREES])
def test_a_file_of_each_architecture_has_the_nodes_preset_and_layers(name):
    model = base_model(name)
    check(model.diffusion_model, "transformer", preset_name(model))


@pytest.mark.parametrize("name", [*_ENCODERS, "gemma4"])
def test_a_file_of_each_text_encoder_has_the_nodes_preset_and_layers(name):
    for transformer in sub_encoders(text_encoder(name)).values():
        check(transformer, "encoder", encoder_preset_name(transformer))


@pytest.mark.parametrize("name", [*TREES, *UNLISTED_TREES])
def test_each_architecture_has_one_signature_and_is_not_a_text_encoder(name):
    shapes = {n: s.shape for n, s in as_file(base_model(name).diffusion_model).items()}
    matching = [s.architecture for s in DIFFUSION_MODELS if s.matches(shapes)]
    assert len(matching) == 1
    assert not any(s.matches(shapes) for s in TEXT_ENCODERS)
