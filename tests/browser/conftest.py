"""The editor in a real browser, in each of its two renderers, on the session's live server."""

import pytest

from lab.browser import BrowserMissingError, browser
from lab.comfyui import comfyui_version
from lab.editor import Editor
from lab.examples import tiny_files
from lab.pack import ROOT

ARTEFACTS = ROOT / ".browser"


@pytest.fixture(scope="package")
def running_browser():
    if comfyui_version() < (0, 30):
        pytest.skip("these tests know the editor of ComfyUI 0.30, this one is older")
    try:
        with browser() as running:
            yield running
    except BrowserMissingError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def examples_server(server):
    tiny_files(server.base / "models")
    return server


@pytest.fixture(scope="package", params=["classic", "nodes2"])
def page(request, running_browser, examples_server):
    """One page for all tests of a renderer; each test loads its own workflow."""
    opened = Editor(running_browser, examples_server, nodes2=request.param == "nodes2")
    opened.renderer = request.param
    yield opened
    opened.close()


@pytest.fixture
def editor(page, request):
    """The page; what it shows at the test's end is kept as a picture, green or not."""
    page.messages.clear()
    yield page
    name = request.node.name.split("[")[0].removeprefix("test_")
    page.screenshot(ARTEFACTS / f"{name}-{page.renderer}.png")
    page.page.keyboard.press("Escape")
    assert not [text for text in page.messages if "graphquant" in text.lower()]
