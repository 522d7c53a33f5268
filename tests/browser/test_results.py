"""A result belongs to its inputs: after a change it is grey, elsewhere it is not shown at all."""

import base64
import io
import re

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lab import workflows
from lab.tiny_models import FLUX
from lab.ui_workflow import ui_workflow


@pytest.fixture
def quantize(editor, examples_server):
    """``quantize(method, seed, **options)`` -> (workflow JSON, id of its Quantize Model node)."""

    def make(method, seed, **options):
        prompt = workflows.quantized(FLUX, method, seed, **options)
        made = ui_workflow(prompt, examples_server.object_info)
        # As a picture's embedded workflow has it: the same id, whatever was run in between.
        made["id"] = f"00000000-0000-4000-8000-{seed:012d}"
        return made, list(prompt).index(workflows.QUANTIZE) + 1

    return make


def _last(editor, node):
    return editor.panel(node).locator(".graphquant-last")


def test_a_changed_widget_or_link_greys_the_report_and_back_it_is_current(editor, quantize):
    workflow, node = quantize("int4", 61)
    editor.load(workflow)
    editor.run()
    _last(editor, node).wait_for()
    assert _last(editor, node).get_attribute("data-stale") is None
    editor.set_widget(node, "method", "int8")
    stale = editor.panel(node).locator(".graphquant-stale")
    stale.wait_for()
    assert stale.inner_text() == "made with int4, run again"
    assert editor.panel(node).locator(".graphquant-chosen").inner_text() == "int8"
    editor.set_widget(node, "method", "int4")
    stale.wait_for(state="detached")
    loader = 1
    editor.set_widget(loader, "weight_dtype", "fp8_e4m3fn")
    editor.notice_changes()
    stale.wait_for()
    assert stale.inner_text() == "made with other inputs, run again"
    editor.set_widget(loader, "weight_dtype", "default")
    editor.notice_changes()
    stale.wait_for(state="detached")
    # What comes after the node is nothing to it.
    editor.set_widget(node + 1, "steps", 3)
    editor.notice_changes()
    editor.settle()
    assert stale.count() == 0


def test_a_workflow_dragged_in_shows_its_own_run_or_nothing(editor, quantize):
    seed = 62 if editor.renderer == "classic" else 63
    for method in ("int8", "int4"):
        workflow, node = quantize(method, seed)
        editor.load(workflow)
        editor.run()
        editor.panel(node).locator(".graphquant-method", has_text=method).wait_for()
    editor.load(quantize("int8", seed)[0])
    editor.panel(node).locator(".graphquant-method", has_text="int8").wait_for()
    assert editor.panel(node).locator(".graphquant-earlier").count() == 1
    editor.load(quantize("int2", seed)[0])
    editor.panel(node).locator(".graphquant-chosen", has_text="int2").wait_for()
    assert _last(editor, node).count() == 0


def _drop(editor, name, data):
    """Drop a file on the canvas, as a user drags it in."""
    editor.evaluate(
        """([name, data]) => {
            const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0))
            const dataTransfer = new DataTransfer()
            dataTransfer.items.add(new File([bytes], name, { type: "image/png" }))
            const options = { dataTransfer, bubbles: true, cancelable: true }
            app.canvas.canvas.dispatchEvent(new DragEvent("drop", options))
        }""",
        name,
        base64.b64encode(data).decode(),
    )


def test_a_picture_dragged_in_shows_its_own_run_or_nothing(editor, quantize, examples_server):
    seed = 68 if editor.renderer == "classic" else 69
    pictures = {}
    for method in ("int8", "int4"):
        workflow, node = quantize(method, seed)
        editor.load(workflow)
        editor.evaluate(
            """([id]) => {
                const save = LiteGraph.createNode("SaveImage")
                app.graph.add(save)
                save.widgets[0].value = "dragged"
                app.graph.getNodeById(id).connect(2, save, 0)
            }""",
            node,
        )
        assert editor.run() == "execution_success"
        editor.panel(node).locator(".graphquant-method", has_text=method).wait_for()
        newest = max(
            (examples_server.base / "output").glob("dragged*.png"),
            key=lambda file: file.stat().st_mtime_ns,
        )
        pictures[method] = newest.read_bytes()
    _drop(editor, "int8.png", pictures["int8"])
    editor.panel(node).locator(".graphquant-method", has_text="int8").wait_for()
    assert editor.panel(node).locator(".graphquant-stale").count() == 0
    assert editor.prompt()[str(node)]["inputs"]["method"] == "int8"
    # A picture of somebody else's: the same nodes, never run in this browser.
    stranger = io.BytesIO()
    with Image.open(io.BytesIO(pictures["int8"])) as picture:
        text = picture.text["workflow"].replace('"int8"', '"int2"')
        info = PngInfo()
        info.add_text("workflow", text)
        picture.save(stranger, "png", pnginfo=info)
    _drop(editor, "int2.png", stranger.getvalue())
    editor.panel(node).locator(".graphquant-chosen", has_text="int2").wait_for()
    assert _last(editor, node).count() == 0
    _drop(editor, "int4.png", pictures["int4"])
    editor.panel(node).locator(".graphquant-method", has_text="int4").wait_for()
    assert editor.panel(node).locator(".graphquant-stale").count() == 0
    # A drop without a mouse leaves the editor waiting for its end: nothing takes a click.
    editor.reload()


def test_an_error_stands_in_its_node_and_the_last_good_run_behind_it_in_grey(editor, quantize):
    workflow, node = quantize("int8", 64)
    editor.load(workflow)
    editor.run()
    _last(editor, node).wait_for()
    editor.set_widget(node, "exclude", "*")
    assert editor.run() == "execution_error"
    error = editor.panel(node).locator(".graphquant-error")
    error.wait_for()
    assert "No layer is left to quantize: 42 of 42 are kept" in error.inner_text()
    assert "Loosen include, exclude or preset." in error.inner_text()
    assert _last(editor, node).get_attribute("data-stale") == "true"
    editor.set_widget(node, "exclude", "")
    error.wait_for(state="detached")


def test_before_a_run_the_panel_is_as_tall_as_a_usual_report(editor, quantize):
    workflow, node = quantize("int8", 65)
    editor.load(workflow)
    before = editor.node_box(node)
    editor.run()
    _last(editor, node).wait_for()
    editor.settle()
    assert editor.node_box(node) == pytest.approx(before, abs=1)


def test_the_size_is_estimated_before_the_run_and_the_run_agrees(editor, quantize):
    workflow, node = quantize("int4", 67)
    editor.load(workflow)
    estimate = editor.panel(node).get_by_text("afterwards about")
    estimate.wait_for()
    # The file is bfloat16, the model in a CPU's memory float32.
    before, after = re.findall(r"([0-9.]+) MiB", estimate.inner_text())
    assert (float(before), float(after)) == pytest.approx((17.7, 5.4), abs=0.3)


def test_a_missing_calibration_and_an_idle_input_are_said_before_the_run(editor, quantize):
    workflow, node = quantize("fp8-static", 66)
    editor.load(workflow)
    warning = editor.panel(node).locator(".graphquant-warning")
    needs = "fp8-static needs a calibration: connect Calibrate Activations."
    assert warning.inner_text() == needs
    editor.set_widget(node, "method", "int4")
    warning.wait_for(state="detached")
    idle = {
        "granularity": ("per-tensor", "granularity does nothing for int4."),
        "max_error": (0.1, "max_error does nothing for int4."),
        "size_gib": (4.0, "size_gib does nothing for int4."),
        "stock_only": (True, "stock_only does nothing for int4."),
        "exact_steps": ("first 2", "exact_steps does nothing for int4."),
        "rank": (16, "rank does nothing for int4."),
        "rounding": (
            "nearest",
            "rounding does nothing without a calibration: connect Calibrate Activations.",
        ),
    }
    for name, (value, _) in idle.items():
        editor.set_widget(node, name, value)
    for _, text in idle.values():
        editor.panel(node).get_by_text(text, exact=True).wait_for()
    assert editor.panel(node).locator(".graphquant-info").count() == len(idle)
    # fp8-dynamic runs as fp8-weight-only on a CPU, which rounds no activations.
    editor.set_widget(node, "method", "fp8-dynamic")
    editor.panel(node).get_by_text("exact_steps does nothing for fp8-dynamic.").wait_for()
    assert editor.panel(node).get_by_text("granularity does nothing").count() == 0
    editor.set_widget(node, "method", "fit")
    editor.panel(node).get_by_text("max_error does nothing for fit.").wait_for()
    assert editor.panel(node).get_by_text("size_gib does nothing").count() == 0
