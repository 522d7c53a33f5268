"""An example as the editor's JSON: where each node lies, and how tall it is."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from ..ui_workflow import ui_workflow
from .parts import Example
from .public_files import public_files

COLUMN, GAP, WIDTH = 370, 40, 320
HEIGHTS = {
    "GQQuantizeModel": 480,
    "GQQuantizeTextEncoder": 560,
    "GQQuantizeVAE": 320,
    "GQQuantizeControlNet": 340,
    "GQMeasureSensitivity": 300,
    "GQCalibrateActivations": 380,
    "GQLayerwiseFP8Cast": 400,
    "GQSaveQuantizedModel": 300,
    "KSampler": 262,
    "CLIPTextEncode": 150,
    "SaveImage": 340,
    "SaveAnimatedWEBP": 400,
    "ImageCompare": 420,
    "DualCLIPLoader": 130,
    "CLIPLoader": 106,
    "EmptySD3LatentImage": 106,
    "Wan22ImageToVideoLatent": 180,
    "ControlNetApplyAdvanced": 230,
    "Canny": 106,
    "LoadImage": 340,
    "PreviewAny": 300,
    "PreviewImage": 300,
    "note": 250,
}
USUAL_HEIGHT = 82
MUTED = 2


def workflow(
    example: Example, object_info: Callable[[str], dict], prompt: dict | None = None
) -> dict:
    """The editor's JSON of the example, or of ``prompt``, a variant with the same node names."""
    prompt = prompt or example.prompt
    made = ui_workflow(prompt, object_info)
    nodes = dict(zip(prompt, made["nodes"], strict=True))
    for name, node in nodes.items():
        if files := public_files(prompt[name]["inputs"]):
            node["properties"]["models"] = files
        # A widget of the editor alone, which stands in no saved workflow.
        node["inputs"] = [socket for socket in node["inputs"] if socket["type"] != "IMAGECOMPARE"]
    nodes["note"] = _note(example.note, len(nodes) + 1)
    made["nodes"].append(nodes["note"])
    made["last_node_id"] = len(nodes)
    bottom = _place(nodes, example.columns, 0)
    _place(nodes, example.muted, bottom + GAP)
    for name in filter(nodes.__contains__, itertools.chain(*example.muted)):
        nodes[name]["mode"] = MUTED
    return made


def _place(nodes: dict, columns: tuple[tuple[str, ...], ...], top: int) -> int:
    """Lay the nodes of each column out from ``top``; returns where the lowest ends."""
    bottom = top
    for number, column in enumerate(columns):
        y = top
        for name in filter(nodes.__contains__, column):
            height = HEIGHTS.get(name, HEIGHTS.get(nodes[name]["type"], USUAL_HEIGHT))
            nodes[name] |= {"pos": [number * COLUMN, y], "size": [WIDTH, height]}
            y += height + GAP
        bottom = max(bottom, y)
    return bottom


def _note(text: str, number: int) -> dict:
    return {
        "id": number,
        "type": "MarkdownNote",
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": "About this workflow",
        "properties": {},
        "widgets_values": [text],
    }
