"""An older ComfyUI is refused in one line that says what to do."""

import pytest

from graphquant.nodes.compatibility import OLDEST, require_comfyui


@pytest.mark.parametrize("version", ["0.25.9", "0.18.2", "0.9.1"])
def test_an_older_comfyui_is_refused(version):
    with pytest.raises(RuntimeError) as error:
        require_comfyui(version)
    assert str(error.value) == (
        f"GraphQuant needs ComfyUI {OLDEST} or newer, and this is {version}. Update ComfyUI."
    )


@pytest.mark.parametrize("version", [OLDEST, "0.30.0", "1.0.0"])
def test_a_newer_one_is_not(version):
    require_comfyui(version)
