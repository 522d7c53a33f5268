"""The node "Load Quantized Model": its names, which never change, and its outputs."""

import pytest

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture
def node():
    from graphquant.nodes.load_quantized_model import GQLoadQuantizedModel

    return GQLoadQuantizedModel


@pytest.fixture
def file(tiny_flux_file, monkeypatch):
    import folder_paths

    entry = ([str(tiny_flux_file.parent)], folder_paths.supported_pt_extensions)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", entry)
    return tiny_flux_file


def test_its_names_are_as_published(node, file):
    schema = node.define_schema()
    assert (schema.node_id, schema.display_name) == ("GQLoadQuantizedModel", "Load Quantized Model")
    assert [i.id for i in schema.inputs] == ["unet_name"]
    assert file.name in schema.inputs[0].options
    assert [o.display_name for o in schema.outputs] == ["MODEL", "report"]


def test_it_returns_the_model_and_a_report(node, file, inference_mode):
    output = node.execute(file.name)
    assert type(output[0].model).__name__ == "Flux"
    assert output[1].startswith(f"Loaded {file.name}: ")
    (report,) = output.ui["graphquant"]
    assert report["path"] == str(file)


def test_a_file_with_no_quantized_layer_is_not_called_quantized(node, file, inference_mode):
    (report,) = node.execute(file.name).ui["graphquant"]
    assert (report["method"], report["quantized_layers"]) == ("none", 0)


def test_a_changed_file_has_another_fingerprint(node, file):
    import os

    before = node.fingerprint_inputs(file.name)
    os.utime(file, ns=(1, before + 1))
    assert node.fingerprint_inputs(file.name) == before + 1
