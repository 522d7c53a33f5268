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
    assert saved["values"] == {"path": "diffusion_models/sub/flux.safetensors", "mib": size}
    assert load["values"] == {"node": "Load Diffusion Model"}
    before = (file.stat().st_mtime_ns, file.read_bytes())
    again = node.execute(GQQuantizeModel.execute(flux_patcher, "int8")[0], "sub/flux")
    assert again[1].startswith("flux.safetensors is there already, byte by byte: nothing was ")
    assert again.ui["graphquant_verdict"][0]["key"] == "unchanged"
    assert (file.stat().st_mtime_ns, file.read_bytes()) == before
    with pytest.raises(StorageError, match=r"exists in .* with other content"):
        node.execute(GQQuantizeModel.execute(flux_patcher, "int4")[0], "sub/flux")
    assert file.read_bytes() == before[1]


def test_what_the_disk_says_is_told_with_the_remedy(node, flux_patcher, tmp_path, monkeypatch):
    import folder_paths

    from graphquant.nodes.quantize_model import GQQuantizeModel
    from graphquant.quant_core.storage import writer

    folder = tmp_path / "diffusion_models"
    (folder / "folder.safetensors").mkdir(parents=True)
    (folder / "file").write_text("x")
    entry = ([str(folder)], folder_paths.supported_pt_extensions)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", entry)
    model = GQQuantizeModel.execute(flux_patcher, "int8")[0]
    told = {
        "x" * 300: "File name too long.*Choose a shorter name",
        "file/flux": "Part of that path is a file",
        "folder": "is a folder. Choose another name",
    }
    for name, words in told.items():
        with pytest.raises(StorageError, match=words):
            node.execute(model, name, overwrite=True)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writer.os, "fsync", full)
        with pytest.raises(StorageError, match=r"No space left on device. Make room on that disk"):
            node.execute(model, "flux")
    assert sorted(path.name for path in folder.iterdir()) == ["file", "folder.safetensors"]
