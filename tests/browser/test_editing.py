"""A user at work: menus, dropdowns, help, templates, settings, an error, a cancelled run."""

import json
import re

import pytest

from lab import workflows
from lab.examples import EXAMPLES, on_tiny_model, workflow
from lab.tiny_models import FLUX
from lab.ui_workflow import ui_workflow


@pytest.fixture
def quantize(editor, examples_server):
    """``quantize(method, seed, **options)``: loads a workflow, gives its Quantize Model's id."""

    def load(method, seed, steps=4, **options):
        prompt = workflows.quantized(FLUX, method, seed, **options)
        prompt["sample_quantized"]["inputs"]["steps"] = steps
        editor.load(ui_workflow(prompt, examples_server.object_info))
        return list(prompt).index(workflows.QUANTIZE) + 1

    return load


def _method(editor, node):
    return editor.prompt()[str(node)]["inputs"]["method"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_opens_whole_and_runs_on_a_tiny_model(editor, examples_server, example):
    editor.load(json.loads(example.file.read_text()))
    found = {node["class_type"] for node in editor.prompt().values()}
    assert found == {node["class_type"] for node in example.running.values()}
    prompt = on_tiny_model(example)
    editor.load(workflow(example, examples_server.object_info, prompt))
    assert editor.run() == "execution_success"
    quantizing = ("GQQuantizeModel", "GQQuantizeControlNet", "GQLayerwiseFP8Cast")
    for number, node in enumerate(prompt.values(), 1):
        if node["class_type"].startswith(quantizing):
            panel = editor.panel(number)
            panel.locator(".graphquant-method").wait_for()
            assert re.search(r"\b[1-9]\d* layers quantized", panel.inner_text())


def test_the_dropdown_is_changed_by_hand_and_keeps_its_values(editor, quantize):
    node = quantize("int8", 41)
    label = "fp8-dynamic (runs as fp8-weight-only)"
    if editor.renderer == "nodes2":
        editor.page.locator(f'[data-node-id="{node}"]').get_by_label("method").first.click()
        editor.page.get_by_role("option", name=label).click()
    else:
        left, top, right, _ = editor.node_box(node)
        scale = editor.evaluate("() => app.canvas.ds.scale")
        y = editor.evaluate("([id]) => app.graph.getNodeById(id).widgets[0].last_y", node)
        editor.page.mouse.click((left + right) / 2, top + (30 + y + 10) * scale)
        editor.page.locator(".litecontextmenu .litemenu-entry", has_text=label).click()
    editor.page.wait_for_function(
        "([id]) => app.graph.getNodeById(id).widgets[0].value === 'fp8-dynamic'", arg=[node]
    )
    assert _method(editor, node) == "fp8-dynamic"
    editor.panel(node).get_by_text("runs as fp8-weight-only on this CPU").wait_for()


def test_an_error_is_read_on_the_page_fact_first(editor, quantize):
    quantize("int8", 42, exclude="*")
    assert editor.run() == "execution_error"
    shown = editor.page.get_by_text("No layer is left to quantize: 42 of 42 are kept").first
    if not shown.is_visible():
        editor.page.get_by_role("button", name="View details").first.click()
    shown.wait_for()
    assert "Loosen include, exclude or preset." in shown.inner_text()


def test_a_run_cancelled_in_the_middle_leaves_the_panel_and_runs_again(editor, quantize):
    node = quantize("int8", 43, steps=10000)
    editor.queue()
    editor.panel(node).locator(".graphquant-method").wait_for()
    editor.page.get_by_role("button", name="Cancel current run").click()
    assert editor.end() == "execution_interrupted"
    assert "32 layers quantized" in editor.panel(node).inner_text()
    sampler = node + 1
    editor.set_widget(sampler, "steps", 2)
    assert editor.run() == "execution_success"


def test_the_report_is_copied_and_saved_from_the_menu(editor, quantize):
    node = quantize("int8", 44)
    editor.run()
    editor.panel(node).locator(".graphquant-method").wait_for()
    editor.choose(node, "Copy report")
    editor.page.get_by_text("Report copied").wait_for()
    copied = editor.evaluate("() => navigator.clipboard.readText()")
    assert copied.startswith("int8: 32 of 42 layers quantized, 35.3 -> ")
    assert "- quantized: 32 x int8 per-row" in copied
    with editor.page.expect_download() as download:
        editor.choose(node, "Save report as JSON")
    assert download.value.suggested_filename == "Quantize-Model-FP8-INT8-INT4--report.json"
    (report,) = json.loads(download.value.path().read_text())
    assert (report["method"], len(report["layers"])) == ("int8", 42)
    assert copied == report["text"]


def test_the_examples_are_in_the_template_browser_with_their_pictures(editor):
    editor.execute("Comfy.BrowseTemplates")
    templates = editor.page.get_by_role("dialog")
    templates.get_by_text("GraphQuant", exact=True).first.click()
    for example in EXAMPLES:
        # The list holds only the cards in sight, and they load their pictures one by one.
        templates.get_by_placeholder("Search").fill(example.name)
        templates.get_by_alt_text(example.name, exact=True).first.wait_for()
        editor.page.wait_for_function(
            """(name) => [...document.querySelectorAll(`[role=dialog] img[alt="${name}"]`)]
                .some(({ naturalWidth }) => naturalWidth === 720)""",
            arg=example.name,
        )
    editor.page.keyboard.press("Escape")


def test_the_settings_offer_every_method_and_new_nodes_start_with_the_chosen_one(
    editor, examples_server, quantize
):
    node = quantize("int4", 46)
    _, dropdown = examples_server.object_info("GQQuantizeModel")["input"]["required"]["method"]
    offered = editor.evaluate(
        """() => app.extensionManager.setting.settings["graphquant.defaultMethod"].options"""
    )
    assert offered == dropdown["options"]
    editor.set_setting("graphquant.defaultMethod", "int8")
    created = editor.evaluate(
        """(kinds) => kinds.map((kind) => LiteGraph.createNode(kind).widgets[0].value)""",
        "GQQuantizeModel",
        "GQQuantizeVAE",
    )
    assert created == ["int8", "int8"]
    quantize("int4", 46)
    assert _method(editor, node) == "int4"
    editor.set_setting("graphquant.defaultMethod", "auto")


def test_the_settings_dialog_has_a_section_of_the_pack(editor):
    editor.execute("Comfy.ShowSettingsDialog")
    settings = editor.page.get_by_role("dialog")
    settings.get_by_text("GraphQuant", exact=True).first.click()
    editor.page.get_by_text("Method of new Quantize nodes").wait_for()
    editor.page.get_by_text("Show the report panel on nodes").wait_for()
