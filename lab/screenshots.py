"""Every picture of the project, taken anew from the running editor.

    python -m lab.screenshots

writes docs/images/, the pictures of the node help in web/docs/, and the examples' thumbnails.
It runs the examples on tiny models: the sizes in the pictures are theirs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from .browser import Editor, browser
from .examples import (
    COMPARE_QUANTIZED,
    EXAMPLES,
    FLUX_FP8_LORA,
    on_tiny_model,
    tiny_files,
    workflow,
)
from .pack import ROOT
from .server import Server

IMAGES = ROOT / "docs" / "images"
HELP = ROOT / "web" / "docs"
MARGIN = 24
# Files that the examples name and a picture does not read: there, no node is framed in red.
NAMED_FILES = (
    "text_encoders/clip_l.safetensors",
    "text_encoders/t5xxl_fp16.safetensors",
    "text_encoders/umt5_xxl_fp16.safetensors",
    "text_encoders/qwen_3_4b.safetensors",
    "vae/ae.safetensors",
    "vae/wan_2.1_vae.safetensors",
)


def main() -> None:
    with tempfile.TemporaryDirectory() as base, browser() as running:
        server = Server(base)
        tiny_files(server.base / "models")
        for name in NAMED_FILES:
            file = server.base / "models" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        with server:
            thumbnails(running, server)
            for nodes2, pictures in ((True, readme_pictures), (False, classic_picture)):
                editor = Editor(running, server, nodes2=nodes2, size=(1500, 900), scale=2)
                editor.execute("Workspace.ToggleFocusMode")
                pictures(editor)
                editor.close()


def thumbnails(running, server: Server) -> None:
    """One JPEG an example: the workflow as it opens."""
    editor = Editor(running, server, nodes2=True, size=(1280, 760))
    editor.execute("Workspace.ToggleFocusMode")
    for example in EXAMPLES:
        editor.load(workflow(example, server.object_info))
        _take(editor, example.file.with_suffix(".jpg"), _all_nodes(editor), quality=82)
    editor.close()


def readme_pictures(editor: Editor) -> None:
    """The workflow, the panel and the table, in Nodes 2.0."""
    nodes = _run(editor, COMPARE_QUANTIZED)
    _take(editor, IMAGES / "workflow.png", _all_nodes(editor))
    nodes = _run(editor, FLUX_FP8_LORA)
    _look_at(editor, nodes["quantize"])
    _take(editor, IMAGES / "panel.png", [nodes["quantize"]])
    _take(editor, HELP / "GQQuantizeModel.png", [nodes["quantize"]])
    editor.panel(nodes["quantize"]).locator("button").click()
    editor.page.locator("dialog.graphquant-dialog").screenshot(path=IMAGES / "details.png")


def classic_picture(editor: Editor) -> None:
    nodes = _run(editor, FLUX_FP8_LORA)
    _look_at(editor, nodes["quantize"])
    _take(editor, IMAGES / "panel-classic.png", [nodes["quantize"]])


def _run(editor: Editor, example) -> dict[str, int]:
    """Run the example on its tiny model; returns the node ids by name."""
    prompt = on_tiny_model(example)
    editor.load(workflow(example, editor.server.object_info, prompt))
    editor.run()
    nodes = {name: number for number, name in enumerate(prompt, 1)}
    editor.panel(nodes["quantize"]).locator(".graphquant-method").wait_for()
    editor.page.wait_for_timeout(5000)  # until the notice "Job completed" has gone
    return nodes


def _look_at(editor: Editor, node: int) -> None:
    editor.evaluate(
        """([id]) => {
            const node = app.graph.getNodeById(id)
            app.canvas.ds.scale = 1
            app.canvas.ds.offset = [200 - node.pos[0], 100 - node.pos[1]]
            app.canvas.setDirty(true, true)
        }""",
        node,
    )
    editor.page.wait_for_timeout(500)


def _all_nodes(editor: Editor) -> list[int]:
    return editor.evaluate("() => app.graph.nodes.map((node) => Number(node.id))")


def _take(editor: Editor, file: Path, nodes: Iterable[int], **options) -> None:
    """A picture of these nodes and MARGIN around them."""
    lefts, tops, rights, bottoms = zip(*map(editor.node_box, nodes), strict=True)
    left, top = max(0, min(lefts) - MARGIN), max(0, min(tops) - MARGIN)
    clip = {
        "x": left,
        "y": top,
        "width": max(rights) + MARGIN - left,
        "height": max(bottoms) + MARGIN - top,
    }
    editor.screenshot(file, clip=clip, **options)
    print(f"wrote {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
