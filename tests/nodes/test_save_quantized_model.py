"""The node "Save Quantized Model": its names, which never change, and its outputs."""

import pytest

from graphquant.quant_core.errors import StorageError

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture
def node():
    from graphquant.nodes.save_quantized_model import GQSaveQuantizedModel

    return GQSaveQuantizedModel


def test_its_names_and_defaults_are_as_published(node):
    schema = node.define_schema()
    assert (schema.node_id, schema.display_name) == ("GQSaveQuantizedModel", "Save Quantized Model")
    assert schema.is_output_node
    assert [i.id for i in schema.inputs] == ["model", "filename_prefix", "format", "overwrite"]
    assert schema.inputs[2].options == ["auto", "stock", "graphquant"]
    assert [i.default for i in schema.inputs[2:]] == ["auto", False]
    assert [o.display_name for o in schema.outputs] == ["path", "report"]


def test_it_returns_the_path_and_a_report(node, flux_patcher, tmp_path, monkeypatch):
    import folder_paths

    from graphquant.nodes.quantize_model import GQQuantizeModel

    folder = tmp_path / "diffusion_models"
    entry = ([str(folder)], folder_paths.supported_pt_extensions)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", entry)
    output = node.execute(GQQuantizeModel.execute(flux_patcher, "int8")[0], "sub/flux")
    assert output[0] == str(folder / "sub" / "flux.safetensors")
    assert output[1].startswith("Saved flux.safetensors: ")
    assert output.ui["graphquant"][0]["quantized_layers"] == 32
    file = folder / "sub" / "flux.safetensors"
    saved, load = output.ui["graphquant_verdict"]
    size = f"{file.stat().st_size / 2**20:.1f}"
    assert saved["values"] == {"path": "sub/flux.safetensors", "mib": size}
    assert load["values"] == {"node": "Load Diffusion Model"}
    before = (file.stat().st_mtime_ns, file.read_bytes())
    again = node.execute(GQQuantizeModel.execute(flux_patcher, "int8")[0], "sub/flux")
    assert again[1].startswith("flux.safetensors is there already, byte by byte: nothing was ")
    assert again.ui["graphquant_verdict"][0]["key"] == "unchanged"
    assert (file.stat().st_mtime_ns, file.read_bytes()) == before
    with pytest.raises(StorageError, match=r"exists in .* with other content"):
        node.execute(GQQuantizeModel.execute(flux_patcher, "int4")[0], "sub/flux")
    assert file.read_bytes() == before[1]
