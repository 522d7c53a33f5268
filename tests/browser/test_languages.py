"""The pack in another language: its nodes, and the panel's own words."""

from lab import workflows
from lab.editor import Editor
from lab.tiny_models import FLUX
from lab.ui_workflow import ui_workflow


def test_in_chinese_the_node_and_its_panel_speak_chinese(running_browser, examples_server):
    editor = Editor(running_browser, examples_server, nodes2=True, locale="zh")
    prompt = workflows.quantized(FLUX, "fp8-dynamic", seed=51)
    node = list(prompt).index(workflows.QUANTIZE) + 1
    editor.load(ui_workflow(prompt, examples_server.object_info))
    editor.run()
    editor.panel(node).get_by_text("\u5df2\u91cf\u5316 32 \u5c42").wait_for()
    title = "\u91cf\u5316\u6a21\u578b (FP8, INT8, INT4)"
    assert editor.evaluate("() => LiteGraph.createNode('GQQuantizeModel').title") == title
    editor.close()
