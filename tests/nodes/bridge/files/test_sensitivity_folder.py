"""models/graphquant_sensitivity: found by what it holds, whatever it is called."""

from dataclasses import replace

import pytest

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    return tmp_path / "graphquant_sensitivity"


@pytest.fixture
def own(flux_patcher):
    from graphquant.quant_core.calibration import fingerprint_of
    from graphquant.quant_core.fit import Sensitivity

    model = fingerprint_of(flux_patcher.model.diffusion_model)
    return Sensitivity("flux1", model, "int4-symmetric", {"a": 0.1})


def find(patcher):
    from graphquant.nodes.bridge.files.sensitivity_folder import find_sensitivity

    return find_sensitivity(patcher.model.diffusion_model)


def test_nothing_is_found_where_there_is_no_folder(flux_patcher, folder):
    assert find(flux_patcher) == (None, ())


def test_the_very_model_s_goes_before_a_sibling_s(flux_patcher, folder, own):
    values = tuple(value + 1 for value in own.model.values)
    replace(own, effects={"b": 0.2}, model=replace(own.model, values=values)).save(
        folder / "a.json"
    )
    own.save(folder / "z.json")
    found, notes = find(flux_patcher)
    assert found.effects == own.effects
    assert notes == ("sensitivity: found in models/graphquant_sensitivity/z.json.",)


def test_a_damaged_file_is_passed_over_with_a_note(flux_patcher, folder, own):
    own.save(folder / "good.json")
    text = own.to_json()
    (folder / "half.json").write_text(text[: len(text) // 2])
    (folder / "binary.json").write_bytes(b"\xff\xfe\x00")
    replace(own, model=replace(own.model, layers="other")).save(folder / "other.json")
    found, notes = find(flux_patcher)
    assert found.effects == own.effects
    assert [note.split()[1] for note in notes] == [
        "binary.json",
        "half.json",
        "found",
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key": "k", "units": 3}', '{"units": {}}'])
def test_a_damaged_partial_file_starts_anew(folder, text):
    from graphquant.nodes.bridge.files.sensitivity_folder import PartialRun

    folder.mkdir()
    (folder / "x.partial").write_text(text)
    assert PartialRun(folder / "x.json", "k").load() == {}
