"""A machine without a browser gets a reason, not a failure."""

import pytest

from lab.browser import BrowserMissingError, find_chromium


def test_without_a_browser_or_a_way_to_one_the_reason_is_given(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrowserMissingError, match="no Chromium on PATH: install chromium"):
        find_chromium()


def test_the_first_browser_on_the_path_is_taken(monkeypatch, tmp_path):
    for name in ("google-chrome", "chromium-browser"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_chromium() == str(tmp_path / "chromium-browser")
