"""What the node says of the graph around it: compile nodes after it, patterns, subgraphs."""

import json

import pytest

from lab import workflows
from lab.blueprint import FILE
from lab.tiny_models import FLUX
from lab.ui_workflow import ui_workflow

FROM_QUANTIZE = [workflows.QUANTIZE, 0]


@pytest.fixture
def compiled(examples_server):
    """``compiled(method, backend)`` -> (workflow, Quantize Model's id): a compile node after it."""

    def make(method, backend):
        prompt = workflows.quantized(FLUX, method)
        compile_node = {
            "class_type": "TorchCompileModel",
            "inputs": {"model": FROM_QUANTIZE, "backend": backend},
        }
        prompt = {**prompt, "compile": compile_node}
        prompt["sample_quantized"]["inputs"]["model"] = ["compile", 0]
        made = ui_workflow(prompt, examples_server.object_info)
        return made, list(prompt).index(workflows.QUANTIZE) + 1

    return make


def _notes(editor, node):
    return editor.panel(node).locator(".graphquant-note").all_inner_texts()


def test_cuda_graphs_after_fp8_dynamic_are_a_warning(editor, compiled):
    workflow, node = compiled("fp8-dynamic", "cudagraphs")
    editor.load(workflow)
    warning = editor.panel(node).locator(".graphquant-warning").inner_text()
    assert "TorchCompileModel: fp8-dynamic with compile mode reduce-overhead" in warning
    assert "Use compile mode default, or fp8-weight-only." in warning


def test_the_inductor_after_fp8_dynamic_is_a_note_without_alarm(editor, compiled):
    workflow, node = compiled("fp8-dynamic", "inductor")
    editor.load(workflow)
    assert any("compiles in its default mode" in text for text in _notes(editor, node))
    assert editor.panel(node).locator(".graphquant-warning").count() == 0


def test_no_compile_note_for_int8_or_when_the_compile_node_is_bypassed(editor, compiled):
    workflow, node = compiled("int8", "cudagraphs")
    editor.load(workflow)
    assert _notes(editor, node) == []
    editor.set_widget(node, "method", "fp8-dynamic")
    editor.panel(node).locator(".graphquant-warning").wait_for()
    editor.evaluate(
        """() => {
            app.graph.nodes.find((node) => node.type === "TorchCompileModel").mode = 4
            app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()
        }"""
    )
    editor.panel(node).locator(".graphquant-warning").wait_for(state="detached")


def test_a_connected_config_silences_what_is_said_of_the_method(editor, compiled, examples_server):
    prompt = workflows.quantized(FLUX, "fp8-dynamic", config=["config", 0])
    node = {"class_type": "GQQuantizationConfig", "inputs": {"text": "int8"}}
    made = ui_workflow({**prompt, "config": node}, examples_server.object_info)
    editor.load(made)
    quantize = list(prompt).index(workflows.QUANTIZE) + 1
    assert editor.panel(quantize).inner_text() == "Quantization Config decides the method."
    alone, same = compiled("fp8-dynamic", "inductor")
    editor.load(alone)
    editor.panel(same).locator(".graphquant-note").first.wait_for()


def test_a_compile_node_inside_a_subgraph_is_found(editor, compiled):
    workflow, node = compiled("fp8-dynamic", "cudagraphs")
    editor.load(workflow)
    kind = editor.evaluate(
        """() => {
            const inner = app.graph.nodes.find((node) => node.type === "TorchCompileModel")
            app.graph.convertToSubgraph(new Set([inner]))
            app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()
            return app.graph.nodes.some((node) => node.type === "TorchCompileModel")
        }"""
    )
    assert kind is False
    editor.panel(node).locator(".graphquant-warning").wait_for()


def test_the_patterns_are_counted_while_they_are_typed(editor, examples_server):
    prompt = workflows.quantized(FLUX, "int8", seed=31)
    node = list(prompt).index(workflows.QUANTIZE) + 1
    editor.load(ui_workflow(prompt, examples_server.object_info))
    editor.run()
    editor.panel(node).locator(".graphquant-method").wait_for()
    assert _notes(editor, node) == []
    editor.set_widget(node, "include", "double_blocks\nno_such_block")
    editor.set_widget(node, "exclude", "*.img_mlp.*")
    editor.panel(node).locator(".graphquant-note").first.wait_for()
    assert _notes(editor, node) == [
        "include: 20 of 42 layers of the last run match.",
        "include: no layer matches no_such_block.",
        "exclude: 4 of 42 layers of the last run match.",
    ]


def test_the_blueprint_runs_and_its_node_has_the_panel_outside_and_within(editor, examples_server):
    workflow = json.loads(FILE.read_text())
    editor.load(workflow)
    (outer,) = editor.evaluate(
        "() => app.graph.nodes.filter((node) => node.isSubgraphNode?.()).map(({ id }) => id)"
    )
    values = editor.serialize()["nodes"][0]["widgets_values"]
    editor.panel(outer).locator(".graphquant-chosen", has_text="int8").wait_for()
    editor.panel(outer).get_by_text("afterwards about").wait_for()
    editor.evaluate(
        """() => {
            const preview = LiteGraph.createNode("PreviewAny")
            app.graph.add(preview)
            const [outer] = app.graph.nodes.filter((node) => node.isSubgraphNode?.())
            outer.widgets.find(({ name }) => name === "method").value = "int4"
            outer.connect(1, preview, 0)
        }"""
    )
    kinds = sorted(node["class_type"] for node in editor.prompt().values())
    assert kinds == ["GQQuantizeModel", "PreviewAny", "UNETLoader"]
    editor.notice_changes()
    editor.panel(outer).locator(".graphquant-chosen", has_text="int4").wait_for()
    assert editor.run() == "execution_success"
    shown = editor.panel(outer).locator(".graphquant-method", has_text="int4")
    shown.wait_for()
    editor.settle()
    left, top, right, bottom = editor.node_box(outer)
    box = editor.panel(outer).locator(".graphquant-content").bounding_box()
    assert left < box["x"] and box["x"] + box["width"] < right
    assert top < box["y"] and box["y"] + box["height"] < bottom
    # What is saved of the outer node is what it was: its promoted widgets.
    (saved,) = (n for n in editor.serialize()["nodes"] if str(n["id"]) == str(outer))
    assert saved["widgets_values"] == [values[0], "int4", *values[2:]]
    editor.evaluate(
        """() => {
            const [outer] = app.graph.nodes.filter((node) => node.isSubgraphNode?.())
            app.canvas.openSubgraph(outer.subgraph, outer)
        }"""
    )
    panel = editor.panel(2)
    panel.locator(".graphquant-method").wait_for()
    assert panel.locator(".graphquant-method").inner_text() == "int4"
    assert "32 layers quantized" in panel.inner_text()
    editor.evaluate("() => app.canvas.setGraph(app.rootGraph)")
    shown.wait_for()
