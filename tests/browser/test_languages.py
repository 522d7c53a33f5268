"""The pack in another language: its nodes, the panel's words, the server's sentences, the help."""

import json
import re

import pytest

from lab import workflows
from lab.editor import Editor
from lab.pack import ROOT
from lab.tiny_models import FLUX
from lab.ui_workflow import ui_workflow


@pytest.fixture(params=[("zh", True), ("ja", False)], ids=["zh-nodes2", "ja-classic"])
def foreign(request, running_browser, examples_server):
    """(editor in another language, its words, its sentences, the titles of its nodes)."""
    language, nodes2 = request.param
    folder = ROOT / "locales" / language
    words = json.loads((folder / "main.json").read_text(encoding="utf-8"))
    nodes = json.loads((folder / "nodeDefs.json").read_text(encoding="utf-8"))
    editor = Editor(running_browser, examples_server, nodes2=nodes2, locale=language)
    yield editor, words["graphquant"], words["graphquant_said"], nodes
    editor.screenshot(ROOT / ".browser" / f"language-{language}.png")
    editor.close()


def _filled(text, **values):
    return re.sub(r"\{(\w+)\}", lambda found: str(values[found[1]]), text)


def test_the_panel_speaks_the_editors_language_from_the_title_to_the_table(
    foreign, examples_server
):
    editor, words, said, nodes = foreign
    prompt = workflows.quantized(FLUX, "fp8-dynamic", seed=51, exclude="img_mlp\nno.such")
    node = list(prompt).index(workflows.QUANTIZE) + 1
    editor.load(ui_workflow(prompt, examples_server.object_info))
    title = nodes["GQQuantizeModel"]["display_name"]
    assert editor.evaluate("() => LiteGraph.createNode('GQQuantizeModel').title") == title
    editor.run()
    panel = editor.panel(node)
    panel.get_by_text(_filled(words["layers"], quantized=28, kept=14)).wait_for()
    # What the server said in English.
    fallback = next(text for text in said if text.startswith("{method} needs FP8 matmuls"))
    assert panel.locator(".graphquant-warning").all_inner_texts()[:2] == [
        _filled(said[fallback], method="fp8-dynamic", device="CPU", fallback="fp8-weight-only"),
        _filled(
            said["Exclude pattern {pattern} matches none of {count} layers."],
            pattern="'no.such'",
            count=42,
        ),
    ]
    assert said["dequantize + matmul"] in panel.locator(".graphquant-footer").inner_text()
    panel.locator("button.graphquant-details").click()
    dialog = editor.page.locator("dialog.graphquant-dialog")
    reasons = set(dialog.locator(".graphquant-cell-reason").all_inner_texts())
    kept = said["preset {preset} keeps {pattern}"]
    assert _filled(kept, preset="flux1", pattern="final_layer") in reasons
    assert _filled(said["excluded by {pattern}"], pattern="img_mlp") in reasons
    assert said["a bias is added, not multiplied"] in reasons
    assert not [text for text in reasons if re.fullmatch(r"[a-z][ -~]+", text)]
    actions = set(dialog.locator(".graphquant-cell-action").all_inner_texts())
    assert actions == {words["word_quantize"], words["word_keep"]}
    editor.page.keyboard.press("Escape")
    editor.set_widget(node, "exclude", "*")
    assert editor.run() == "execution_error"
    error = panel.locator(".graphquant-error")
    error.wait_for()
    assert said["Loosen include, exclude or preset."] in error.inner_text()
    assert _filled(said["excluded by {pattern}"], pattern="*") in error.inner_text()


def test_help_is_in_the_editors_language_in_the_menu_and_in_the_info_panel(
    foreign, examples_server
):
    editor, words, _, nodes = foreign
    alone = {"measure": {"class_type": "GQMeasureSensitivity", "inputs": {}}}
    editor.load(ui_workflow(alone, examples_server.object_info))
    node = 1
    title = nodes["GQMeasureSensitivity"]["display_name"]
    editor.choose(node, words["openHelp"])
    dialog = editor.page.locator("dialog.graphquant-dialog")
    dialog.get_by_role("heading", name=title).last.wait_for()
    language = editor.settings["Comfy.Locale"]
    page = ROOT / "web" / "docs" / "GQMeasureSensitivity" / f"{language}.md"
    second = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)[-1]
    dialog.get_by_role("heading", name=second).wait_for()
    editor.page.keyboard.press("Escape")
    editor.select(node)
    editor.page.locator('[data-testid="info-button"]').click()
    editor.page.get_by_role("heading", name=second).wait_for()
    editor.set_setting("Comfy.RightSidePanel.IsOpen", False)
