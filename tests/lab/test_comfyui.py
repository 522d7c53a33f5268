"""ComfyUI's own modules win over this repository's folders of the same name."""

import sys

import pytest

from lab.comfyui import comfyui_path, comfyui_version


def test_nodes_is_comfyuis_although_the_repository_has_a_folder_of_that_name(comfy):
    import comfy.sd
    import nodes

    assert nodes.__file__ == str(comfyui_path() / "nodes.py")
    assert comfy.sd.__file__.startswith(str(comfyui_path()))
    assert comfyui_version() >= (0, 26, 0)


def test_the_pack_goes_by_its_own_name():
    assert sys.modules["graphquant"].__name__ == "graphquant"


def test_a_folder_without_comfyui_is_named_in_the_error(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHQUANT_COMFYUI", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"GRAPHQUANT_COMFYUI='.*' is not a ComfyUI folder"):
        comfyui_path()
