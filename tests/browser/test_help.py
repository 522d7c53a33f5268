"""Help where a user looks for it: the node's menu, and ComfyUI's own Info panel."""

import pytest

from lab import workflows
from lab.pack import ROOT
from lab.tiny_models import FLUX
from lab.ui_workflow import ui_workflow

KINDS = sorted(page.stem for page in (ROOT / "web" / "docs").glob("GQ*.md"))
PICTURE = """(kind) => [...document.querySelectorAll(`img[src$="/docs/${kind}.png"]`)]
    .some(({ naturalWidth }) => naturalWidth > 300)"""


@pytest.fixture
def quantize(editor, examples_server):
    """The id of a Quantize Model, in a workflow that is open."""
    prompt = workflows.quantized(FLUX, "int8")
    editor.load(ui_workflow(prompt, examples_server.object_info))
    return list(prompt).index(workflows.QUANTIZE) + 1


def test_help_opens_from_the_menu_with_its_picture(editor, quantize):
    editor.choose(quantize, "Open help")
    dialog = editor.page.locator("dialog.graphquant-dialog")
    dialog.get_by_role("heading", name="Which method").wait_for()
    editor.page.wait_for_function(PICTURE, arg="GQQuantizeModel")
    editor.page.keyboard.press("Escape")
    dialog.wait_for(state="detached")


def test_a_help_page_is_sanitized(editor, quantize):
    hostile = "# Hostile <img src=x onerror='window.hit = 1'><script>window.hit = 1</script>"
    pattern = "**/docs/GQQuantizeModel.md"
    editor.page.route(pattern, lambda route: route.fulfill(body=hostile))
    editor.choose(quantize, "Open help")
    dialog = editor.page.locator("dialog.graphquant-dialog")
    dialog.get_by_role("heading", name="Hostile").wait_for()
    editor.page.unroute(pattern)
    page = dialog.locator(".graphquant-help").inner_html()
    assert "<img" in page and "onerror" not in page and "<script" not in page
    assert editor.evaluate("() => window.hit ?? 0") == 0


def test_the_info_panel_shows_the_page_and_picture_of_every_node(editor, quantize):
    for kind in KINDS:
        node = editor.add(kind)
        editor.settle()
        editor.select(node)
        editor.page.locator('[data-testid="info-button"]').click()
        editor.page.wait_for_function(PICTURE, arg=kind)
        editor.remove(node)
    editor.set_setting("Comfy.RightSidePanel.IsOpen", False)
