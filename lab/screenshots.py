"""Every picture of the project, taken anew from the running editor.

    python -m lab.screenshots

writes docs/images/, the pictures of the node help in web/docs/, and the examples' thumbnails.
It runs the examples on tiny models: the sizes in the pictures are theirs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from .browser import Editor, browser
from .examples import (
    EXAMPLES,
    FLUX_FP8_LORA,
    WIDTH,
    Example,
    on_tiny_model,
    tiny_files,
    workflow,
)
from .pack import ROOT
from .server import Server

IMAGES = ROOT / "docs" / "images"
HELP = ROOT / "web" / "docs"
MARGIN = 24
# The page of a thumbnail, and the part of it that is kept: between the editor's floating tools.
THUMBNAIL = (720, 670)
KEPT = {"x": 0, "y": 50, "width": 720, "height": 540}
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
            readme_pictures(running, server)


def thumbnails(running, server: Server) -> None:
    """One JPEG an example: its first node of this pack and what is around it, as it opens."""
    editor = Editor(running, server, nodes2=True, size=THUMBNAIL)
    editor.execute("Workspace.ToggleFocusMode")
    for example in EXAMPLES:
        editor.load(workflow(example, server.object_info))
        kinds = [node["class_type"] for node in example.prompt.values()]
        first = next(number for number, kind in enumerate(kinds, 1) if kind.startswith("GQ"))
        _look_at(editor, first, left=(THUMBNAIL[0] - WIDTH) // 2, top=130)
        _take(editor, example.file.with_suffix(".jpg"), clip=KEPT, quality=82)
    editor.close()


def readme_pictures(running, server: Server) -> None:
    """The panel after a run, the table of layers, the examples in the template browser."""
    editor = Editor(running, server, nodes2=True, size=(1400, 860), scale=2)
    quantize = _run(editor, FLUX_FP8_LORA)
    editor.execute("Workspace.ToggleFocusMode")
    _look_at(editor, quantize, left=200, top=100)
    for file in (IMAGES / "panel.png", HELP / "GQQuantizeModel.png"):
        _take(editor, file, clip=_around(editor, quantize))
    editor.panel(quantize).locator("button").click()
    dialog = editor.page.locator("dialog.graphquant-dialog")
    _take(editor, IMAGES / "details.png", clip=dialog.bounding_box())
    editor.page.keyboard.press("Escape")
    editor.execute("Workspace.ToggleFocusMode")
    editor.execute("Comfy.BrowseTemplates")
    editor.page.get_by_role("dialog").get_by_text("GraphQuant", exact=True).first.click()
    editor.page.mouse.move(700, 850)
    editor.page.wait_for_timeout(3000)
    _take(editor, IMAGES / "templates.png")
    editor.close()


def _run(editor: Editor, example: Example) -> int:
    """Run the example on its tiny model; returns the id of its Quantize Model."""
    prompt = on_tiny_model(example)
    editor.load(workflow(example, editor.server.object_info, prompt))
    editor.run()
    quantize = list(prompt).index("quantize") + 1
    editor.panel(quantize).locator(".graphquant-method").wait_for()
    editor.page.wait_for_timeout(5000)  # until the notice "Job completed" has gone
    return quantize


def _look_at(editor: Editor, node: int, left: int, top: int) -> None:
    """Show the node, as small as it goes, this far from the page's corner."""
    editor.evaluate(
        """([id, width, left, top]) => {
            const node = app.graph.getNodeById(id)
            node.setSize([width, 100])
            app.canvas.ds.scale = 1
            app.canvas.ds.offset = [left - node.pos[0], top - node.pos[1]]
            app.canvas.setDirty(true, true)
        }""",
        node,
        WIDTH,
        left,
        top,
    )
    editor.page.wait_for_timeout(700)


def _around(editor: Editor, node: int) -> dict:
    left, top, right, bottom = editor.node_box(node)
    width, height = right - left + 2 * MARGIN, bottom - top + 2 * MARGIN
    return {"x": left - MARGIN, "y": top - MARGIN, "width": width, "height": height}


def _take(editor: Editor, file: Path, **options) -> None:
    editor.screenshot(file, **options)
    print(f"wrote {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
