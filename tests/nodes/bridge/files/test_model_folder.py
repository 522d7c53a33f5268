"""Names in the models folder: what may be saved, and what is offered for loading."""

import pytest

from graphquant.quant_core import QuantizationError

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """models/unet and models/diffusion_models, as ComfyUI has them."""
    import folder_paths

    folders = [tmp_path / "unet", tmp_path / "diffusion_models"]
    for path in folders:
        path.mkdir()
    entry = ([str(path) for path in folders], folder_paths.supported_pt_extensions)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", entry)
    return folders[1]


@pytest.mark.parametrize(
    "prefix, name",
    [
        ("flux-int8", "flux-int8.safetensors"),
        ("flux-int8.safetensors", "flux-int8.safetensors"),
        ("a/b c/flux.1", "a/b c/flux.1.safetensors"),
        ("a\\flux", "a/flux.safetensors"),
        ("console/null", "console/null.safetensors"),
    ],
)
def test_the_name_is_exactly_the_prefix(folder, prefix, name):
    from graphquant.nodes.bridge.files.model_folder import save_target

    assert save_target(prefix) == folder / name


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        " ",
        "/etc/flux",
        "../flux",
        "a/../../flux",
        "a/..",
        "..",
        ".",
        "a//b",
        "a/",
        "C:\\flux",
        "\\\\host\\flux",
        "flux\0",
        "fl\nux",
        "a/./b",
        "flux.",
        "con?",
        "NUL",
        "aux/flux",
        "com1.flux",
        ".safetensors",
        "a /b",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(folder, prefix):
    from graphquant.nodes.bridge.files.model_folder import save_target

    with pytest.raises(QuantizationError, match="can't be a name below models/diffusion_models"):
        save_target(prefix)


def test_safetensors_are_offered_and_an_index_in_place_of_its_shards(folder):
    from graphquant.nodes.bridge.files.model_folder import choices, find

    files = [
        "flux.safetensors",
        "old.sft",
        "pickle.ckpt",
        "pickle.pt",
        "sub/m-00001-of-00002.safetensors",
        "sub/m-00002-of-00002.safetensors",
        "sub/m.safetensors.index.json",
        "lonely-00001-of-00002.safetensors",
    ]
    (folder / "sub").mkdir()
    for name in files:
        (folder / name).touch()
    offered = [name.replace("\\", "/") for name in choices()]
    assert sorted(offered) == [
        "flux.safetensors",
        "lonely-00001-of-00002.safetensors",
        "old.sft",
        "sub/m.safetensors.index.json",
    ]
    assert find("sub/m.safetensors.index.json") == folder / "sub" / "m.safetensors.index.json"


def test_a_name_that_is_not_there_is_an_error(folder):
    from graphquant.nodes.bridge.files.model_folder import find

    with pytest.raises(FileNotFoundError):
        find("../../etc/passwd")
