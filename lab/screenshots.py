"""Every picture of the project, taken anew from the running editor.

    python -m lab.screenshots

writes docs/images/, the pictures of the node help in web/docs/, and the examples' thumbnails.
It runs the examples on tiny models: the sizes in the pictures are theirs.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from .browser import browser
from .comfyui import comfyui_path
from .editor import Editor
from .examples import (
    EXAMPLES,
    FP8_WITH_LORA,
    WIDTH,
    Example,
    on_tiny_model,
    tiny_files,
    workflow,
)
from .help_pictures import help_pictures
from .pack import ROOT
from .server import Server
from .tiny_vaes import FLUX, tiny_vae_file

IMAGES = ROOT / "docs" / "images"
MARGIN = 24
NARROW = (WIDTH, 100)
# The page of a thumbnail, and the part of it that is kept: between the editor's floating tools.
THUMBNAIL = (720, 670)
KEPT = {"x": 0, "y": 50, "width": 720, "height": 540}
# A band beside the node, with words that are read at the size of a card in the template browser.
BAND = 240
LABEL = """([[word, line, model], hue, width]) => {
    document.querySelector("#lab-label")?.remove()
    const band = document.createElement("div")
    band.id = "lab-label"
    band.style = `position: fixed; z-index: 99999; inset: 0 auto 0 0; width: ${width}px;
        box-sizing: border-box; padding: 120px 20px; background: hsl(${hue} 55% 24%);
        color: white; font-family: sans-serif; overflow-wrap: anywhere`
    for (const [text, style] of [[word, "bold 62px/1.05"], [line, "32px/1.2"], [model, "26px/2"]]) {
        const part = document.createElement("div")
        part.textContent = text
        part.style = `font: ${style} sans-serif; margin-bottom: 18px`
        band.append(part)
    }
    document.body.append(band)
}"""
# Files that the examples name and a picture does not read: there, no node is framed in red.
NAMED_FILES = (
    "text_encoders/clip_l.safetensors",
    "text_encoders/t5xxl_fp16.safetensors",
    "text_encoders/umt5_xxl_fp16.safetensors",
    "text_encoders/qwen_3_4b.safetensors",
    "text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors",
    "vae/qwen_image_vae.safetensors",
    "vae/wan2.2_vae.safetensors",
)


def main() -> None:
    with tempfile.TemporaryDirectory() as base, browser() as running:
        # Weights as a GPU has them: a CPU's would be float32, and every size twice what it is.
        server = Server(base, arguments=("--bf16-unet",))
        tiny_files(server.base / "models")
        _tiny_vae(server.base / "models" / "vae" / "ae.safetensors")
        for name in NAMED_FILES:
            file = server.base / "models" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        picture = server.base / "input" / "example.png"
        picture.parent.mkdir(exist_ok=True)
        shutil.copy(comfyui_path() / "input" / picture.name, picture)
        with server:
            thumbnails(running, server)
            readme_pictures(running, server)
            help_pictures(running, server)


def _tiny_vae(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tiny_vae_file(FLUX, file.parent).rename(file)


def thumbnails(running, server: Server) -> None:
    """One JPEG an example: words that tell it, and the node that it is about, as it opens."""
    editor = Editor(running, server, nodes2=True, size=THUMBNAIL)
    editor.execute("Workspace.ToggleFocusMode")
    for number, example in enumerate(EXAMPLES):
        editor.load(workflow(example, server.object_info))
        subject = list(example.prompt).index(example.subject) + 1
        editor.arrange({subject: NARROW}, left=(BAND + THUMBNAIL[0] - WIDTH) // 2, top=110)
        editor.evaluate(LABEL, example.label, number * 360 // len(EXAMPLES), BAND)
        _take(editor, example.file.with_suffix(".jpg"), clip=KEPT, quality=82)
    editor.close()


def readme_pictures(running, server: Server) -> None:
    """The panel after a run, the table of layers, the examples in the template browser."""
    editor = Editor(running, server, nodes2=True, size=(1400, 860), scale=2)
    quantize = _run(editor, FP8_WITH_LORA)
    editor.execute("Workspace.ToggleFocusMode")
    editor.arrange({quantize: NARROW}, left=200, top=100)
    _take(editor, IMAGES / "panel.png", clip=_around(editor, quantize))
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
    # The tiny model runs on a CPU, where FP8 falls back with a warning.
    prompt["quantize"]["inputs"]["method"] = "int8"
    editor.load(workflow(example, editor.server.object_info, prompt))
    editor.run()
    quantize = list(prompt).index("quantize") + 1
    editor.panel(quantize).locator(".graphquant-method").wait_for()
    editor.page.get_by_text("Job completed").wait_for(state="hidden")
    return quantize


def _around(editor: Editor, node: int) -> dict:
    left, top, right, bottom = editor.node_box(node)
    width, height = right - left + 2 * MARGIN, bottom - top + 2 * MARGIN
    return {"x": left - MARGIN, "y": top - MARGIN, "width": width, "height": height}


def _take(editor: Editor, file: Path, **options) -> None:
    editor.screenshot(file, **options)
    print(f"wrote {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
