"""The panel that a run leaves on the node: what it says, and what it must never write."""

import pytest

from lab import workflows
from lab.tiny_models import FLUX
from lab.ui_workflow import ui_workflow

# Yellow on a light node can't be read.
DARK_WARNING = """() => "rgb(107, 66, 0)" ===
    getComputedStyle(document.querySelector(".graphquant-note.graphquant-warning")).color"""


@pytest.fixture
def quantize(examples_server):
    """``quantize(method, **options)`` -> (workflow JSON, id of its Quantize Model node)."""

    def make(method, **options):
        prompt = workflows.quantized(FLUX, method, **options)
        made = ui_workflow(prompt, examples_server.object_info)
        return made, _id_of(made, "GQQuantizeModel")

    return make


def _id_of(workflow, kind):
    return next(node["id"] for node in workflow["nodes"] if node["type"] == kind)


def _saved(workflow, node):
    return next(entry for entry in workflow["nodes"] if entry["id"] == node)


def test_before_a_run_the_dropdown_and_a_note_say_what_does_not_run_here(editor, quantize):
    workflow, node = quantize("fp8-dynamic")
    editor.load(workflow)
    editor.panel(node).get_by_text("afterwards about").wait_for()
    said = editor.panel(node).inner_text().split("\n")
    assert [line for line in said if not line.startswith("File: ")] == [
        "fp8-dynamic",
        "Half the size. FP8 weights and activations: quick on GPUs with FP8 matmuls.",
        "fp8-dynamic: runs as fp8-weight-only on this CPU.",
    ]
    label = editor.evaluate(
        """([id]) => app.graph.getNodeById(id).widgets[0].options.getOptionLabel("fp8-dynamic")""",
        node,
    )
    assert label == "fp8-dynamic (runs as fp8-weight-only)"
    assert editor.prompt()[str(node)]["inputs"]["method"] == "fp8-dynamic"


def test_a_run_shows_the_method_the_layers_and_the_bytes(editor, quantize):
    workflow, node = quantize("fp8-dynamic", exclude="img_mlp")
    editor.load(workflow)
    editor.run()
    panel = editor.panel(node)
    panel.locator(".graphquant-method").wait_for()
    text = panel.inner_text()
    assert "fp8-dynamic as fp8-weight-only" in text
    assert "28 layers quantized, 14 kept" in text
    assert "35.3 MiB \u2192 13.7 MiB" in text
    assert "exclude: 4 of 42 layers of the last run match." in text
    warning = panel.locator(".graphquant-warning").first
    assert "needs FP8 matmuls" in warning.inner_text()
    assert warning.evaluate("(it) => getComputedStyle(it).color") == "rgb(232, 179, 57)"
    editor.set_setting("Comfy.ColorPalette", "light")
    editor.page.wait_for_function(DARK_WARNING)
    editor.set_setting("Comfy.ColorPalette", "dark")
    fill = panel.locator(".graphquant-fill").evaluate("(it) => it.style.width")
    assert 30 < float(fill.rstrip("%")) < 50


def test_the_panel_fits_into_its_node_and_covers_no_other_widget(editor, quantize):
    workflow, node = quantize("int8", seed=21)
    editor.load(workflow)
    editor.run()
    panel = editor.panel(node)
    panel.locator(".graphquant-method").wait_for()
    editor.settle()
    content = panel.locator(".graphquant-content").bounding_box()
    _, top, _, bottom = editor.node_box(node)
    assert top < content["y"]
    assert content["y"] + content["height"] <= bottom + 1


def test_the_table_has_every_layer_biggest_first_and_sorts(editor, quantize):
    workflow, node = quantize("int8", seed=22)
    editor.load(workflow)
    editor.run()
    editor.panel(node).locator(".graphquant-method").wait_for()
    editor.evaluate("([id]) => { app.graph.getNodeById(id).title = 'Renamed' }", node)
    editor.panel(node).locator("button.graphquant-details").click()
    dialog = editor.page.locator("dialog.graphquant-dialog")
    assert dialog.locator("h2").inner_text() == "Renamed"
    rows = dialog.locator("tbody tr")
    (report,) = editor.evaluate("([id]) => app.nodeOutputs[id].graphquant", node)
    assert rows.count() == 42 + len(report["remainder"])
    texts = dialog.locator(".graphquant-cell-bytes_after").all_inner_texts()
    sizes = [float(text.removesuffix(" MiB")) for text in texts]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) > 0
    # Every byte: the rows come to what the panel says of the whole model.
    assert sum(sizes) == pytest.approx(report["model_bytes_after"] / 2**20, rel=0.01)
    total = dialog.locator(".graphquant-count").inner_text()
    assert total.endswith(f"{report['model_bytes_after'] / 2**20:.1f} MiB")
    dialog.locator(".graphquant-filter").fill("a bias is added")
    assert rows.count() == 1
    assert "and 4" in rows.first.inner_text() and "more" in rows.first.inner_text()
    dialog.locator(".graphquant-filter").fill("")
    dialog.locator("th", has_text="layer").click()
    names = dialog.locator(".graphquant-cell-name").all_inner_texts()
    assert names[0].startswith("double_blocks.0.")
    dialog.locator(".graphquant-filter").fill("final_layer")
    assert "preset flux1 keeps final_layer" in rows.first.inner_text()
    assert rows.count() == 2
    dialog.locator("button", has_text="Close").click()
    assert dialog.count() == 0


def test_it_comes_back_after_a_reload_marked_and_a_cached_run_unmarks_it(editor, quantize):
    workflow, node = quantize("int4", seed=23)
    editor.load(workflow)
    editor.run()
    panel = editor.panel(node)
    panel.locator(".graphquant-method").wait_for()
    ran = panel.locator(".graphquant-bytes").inner_text()
    editor.keep_draft()
    editor.reload()
    panel.locator(".graphquant-earlier").wait_for()
    assert panel.locator(".graphquant-bytes").inner_text() == ran
    assert panel.locator(".graphquant-earlier").inner_text() == "from an earlier run"
    assert panel.locator("button.graphquant-details").count() == 1
    editor.run()
    panel.locator(".graphquant-earlier").wait_for(state="detached")
    assert panel.locator(".graphquant-bytes").inner_text() == ran


def test_a_saved_and_reopened_workflow_has_the_same_widget_values(editor, quantize):
    workflow, node = quantize("int8", include="double_blocks\nsingle_blocks", seed=24)
    editor.load(workflow)
    before = _saved(editor.serialize(), node)["widgets_values"]
    editor.run()
    editor.panel(node).locator(".graphquant-method").wait_for()
    saved = editor.save_as(f"round trip, {editor.renderer}")
    assert _saved(saved, node)["widgets_values"] == before
    first = ["int8", "per-row", "auto", "double_blocks\nsingle_blocks", "", "auto", "none"]
    assert before[: len(first)] == first
    editor.load(saved)
    assert _saved(editor.serialize(), node)["widgets_values"] == before
    assert editor.prompt()[str(node)]["inputs"]["include"] == "double_blocks\nsingle_blocks"
    editor.panel(node).locator(".graphquant-layers").wait_for()


def test_a_run_changes_nothing_of_a_saved_workflow(editor, quantize):
    workflow, node = quantize("int8", seed=27)
    editor.load(workflow)
    editor.run()
    editor.panel(node).locator(".graphquant-method").wait_for()
    editor.settle()
    saved = editor.save_as(f"not modified, {editor.renderer}")
    editor.set_widget(node, "method", "int4")
    editor.save()
    editor.run()
    editor.panel(node).get_by_text("int4", exact=True).wait_for()
    editor.settle()
    editor.notice_changes()
    assert editor.is_modified() is False
    assert "graphquant" not in _saved(saved, node)["properties"]


def test_what_auto_chose_is_said_without_alarm_and_beside_no_other_input(editor, quantize):
    workflow, node = quantize("auto", seed=28)
    editor.load(workflow)
    editor.run()
    panel = editor.panel(node)
    panel.locator(".graphquant-method").wait_for()
    assert panel.locator(".graphquant-info").inner_text().startswith("auto chose int8: ")
    assert panel.locator(".graphquant-warning").count() == 0
    editor.set_setting("Comfy.RightSidePanel.IsOpen", True)
    editor.select(node)
    editor.page.get_by_text("Advanced inputs").last.wait_for()
    assert editor.page.get_by_text("graphquant", exact=True).count() == 0
    editor.set_setting("Comfy.RightSidePanel.IsOpen", False)


def test_many_warnings_scroll_in_a_panel_of_bounded_height(editor, quantize):
    workflow, node = quantize("int8", exclude="\n".join(f"no.{n}" for n in range(40)), seed=29)
    editor.load(workflow)
    editor.run()
    panel = editor.panel(node)
    panel.locator(".graphquant-method").wait_for()
    assert panel.locator(".graphquant-content").evaluate("(it) => it.offsetHeight") == 520
    body = panel.locator(".graphquant-body")
    assert body.evaluate("(it) => it.scrollHeight") > 1000
    # What is below scrolls under nothing: the button stands beneath, in sight.
    bottom = body.bounding_box()["y"] + body.bounding_box()["height"]
    assert panel.locator("button.graphquant-details").bounding_box()["y"] >= bottom
    editor.set_widget(node, "exclude", "\n".join(f"other.{n}" for n in range(40)))
    panel.get_by_text("exclude: no layer matches other.0, other.1, other.2 and 37 more.").wait_for()


def test_a_run_of_another_tab_leaves_no_report_on_the_node_that_is_open(
    editor, examples_server, quantize
):
    seed = 31 if editor.renderer == "classic" else 32
    running, node = quantize("int8", seed=seed)
    other, same = quantize("int4", seed=seed)
    assert node == same
    before = workflows.quantized(FLUX, "int8", seed=seed + 100)
    before["sample_quantized"]["inputs"]["steps"] = 10000
    before = examples_server.queue(before)
    editor.load(running)
    editor.evaluate(
        """async () => {
            const note = () => { window.labRan = app.rootGraph.id }
            app.api.addEventListener("execution_success", note, { once: true })
            await app.queuePrompt(0)
        }"""
    )
    editor.evaluate("async ([other]) => app.loadGraphData(other, true, true, 'other')", other)
    examples_server.cancel(before)
    editor.page.wait_for_function("window.labRan === app.rootGraph.id")
    editor.settle()
    assert editor.panel(node).locator(".graphquant-layers").count() == 0
    editor.execute("Workspace.PreviousOpenedWorkflow")
    editor.panel(node).locator(".graphquant-method", has_text="int8").wait_for()
    assert editor.panel(node).locator(".graphquant-stale, .graphquant-earlier").count() == 0
    editor.execute("Workspace.NextOpenedWorkflow")
    editor.panel(node).locator(".graphquant-layers").wait_for(state="detached")
    editor.panel(node).locator(".graphquant-chosen", has_text="int4").wait_for()


def test_several_reports_are_shown_by_part_and_as_text_alone(editor, quantize):
    workflow, node = quantize("int8", seed=25)
    editor.load(workflow)
    editor.evaluate(
        """() => {
            const note = ({ detail }) => { window.labPrompt = detail.prompt_id }
            app.api.addEventListener("execution_start", note, { once: true })
        }"""
    )
    editor.run()
    editor.panel(node).locator(".graphquant-method").wait_for()
    editor.evaluate(
        """([id, part]) => {
            const [report] = app.nodeOutputs[id].graphquant
            const graphquant = [{ ...report, part: "clip_l" }, { ...report, part }]
            const detail = { prompt_id: window.labPrompt, display_node: id, output: { graphquant } }
            app.api.dispatchCustomEvent("executed", detail)
        }""",
        node,
        "<img src=x onerror=alert(1)>",
    )
    parts = editor.panel(node).locator(".graphquant-part")
    parts.first.wait_for()
    assert parts.all_inner_texts() == ["clip_l", "<img src=x onerror=alert(1)>"]
    assert editor.panel(node).locator("img").count() == 0
    editor.set_widget(node, "include", "clip_l")
    editor.panel(node).get_by_text("include: 42 of 84 layers of the last run match.").wait_for()


def test_the_panel_can_be_turned_off_and_on(editor, quantize):
    workflow, node = quantize("int8", seed=26)
    editor.load(workflow)
    editor.run()
    editor.panel(node).locator(".graphquant-method").wait_for()
    editor.set_setting("graphquant.panel", False)
    editor.panel(node).wait_for(state="detached")
    editor.set_setting("graphquant.panel", True)
    editor.panel(node).locator(".graphquant-method").wait_for()
