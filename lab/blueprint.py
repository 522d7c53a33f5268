"""The subgraph "Load and quantize": a loader and Quantize Model as one node.

    python -m lab.blueprint

writes "subgraphs/Load and Quantize.json", which ComfyUI offers in the node library and in the
search, under the file's name.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Callable

from .pack import ROOT
from .server import Server
from .ui_workflow import ui_workflow

NAME = "Load and Quantize"
DESCRIPTION = "Loads a diffusion model and stores its weights in FP8, INT8 or INT4."
FILE = ROOT / "subgraphs" / f"{NAME}.json"
PROMPT = {
    "load": {
        "class_type": "UNETLoader",
        "inputs": {"unet_name": "flux1-dev.safetensors", "weight_dtype": "default"},
    },
    "quantize": {
        "class_type": "GQQuantizeModel",
        "inputs": {"model": ["load", 0], "method": "auto"},
    },
}
# The widgets that the outer node shows: of which inner node, and of what type.
PROMOTED = (("load", "unet_name"), ("quantize", "method"), ("quantize", "preset"))
INPUT_NODE, OUTPUT_NODE = -10, -20


def blueprint(object_info: Callable[[str], dict]) -> dict:
    """The editor's JSON: one outer node, and the subgraph that it stands for."""
    inner = ui_workflow(PROMPT, object_info)
    nodes = dict(zip(PROMPT, inner["nodes"], strict=True))
    links = [_link(*link) for link in inner["links"]]
    inputs = []
    for slot, (node, widget) in enumerate(PROMOTED):
        sockets = nodes[node]["inputs"]
        link = len(links) + 1
        links.append(_link(link, INPUT_NODE, slot, nodes[node]["id"], len(sockets), "COMBO"))
        socket = {"name": widget, "type": "COMBO", "widget": {"name": widget}}
        sockets.append({**socket, "link": link})
        inputs.append({**socket, "id": _id(widget), "linkIds": [link]})
    outputs = []
    for slot, output in enumerate(nodes["quantize"]["outputs"]):
        link = len(links) + 1
        links.append(_link(link, nodes["quantize"]["id"], slot, OUTPUT_NODE, slot, output["type"]))
        output["links"] = [link]
        outputs.append(
            {
                "id": _id(output["name"]),
                "name": output["name"],
                "type": output["type"],
                "linkIds": [link],
            }
        )
    subgraph = {
        "id": _id("subgraph"),
        "version": 1,
        "revision": 0,
        "name": NAME,
        "description": DESCRIPTION,
        "category": "Quantization",
        "state": {
            "lastNodeId": len(nodes),
            "lastLinkId": len(links),
            "lastGroupId": 0,
            "lastRerouteId": 0,
        },
        "config": {},
        "inputNode": {"id": INPUT_NODE, "bounding": [-220, 40, 140, 100]},
        "outputNode": {"id": OUTPUT_NODE, "bounding": [800, 40, 120, 80]},
        "inputs": [
            {key: value for key, value in each.items() if key != "widget"} for each in inputs
        ],
        "outputs": outputs,
        "widgets": [],
        "nodes": list(nodes.values()),
        "groups": [],
        "links": links,
        "extra": {},
    }
    return {
        "revision": 0,
        "last_node_id": 3,
        "last_link_id": 0,
        "nodes": [_outer(subgraph, inputs, nodes)],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": [subgraph]},
        "extra": {},
    }


def _outer(subgraph: dict, inputs: list[dict], nodes: dict[str, dict]) -> dict:
    sockets = [
        {"name": each["name"], "type": each["type"], "widget": each["widget"], "link": None}
        for each in inputs
    ]
    return {
        "id": 3,
        "type": subgraph["id"],
        "pos": [0, 0],
        "size": [340, 160],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": sockets,
        "outputs": [
            {"name": output["name"], "type": output["type"], "links": []}
            for output in subgraph["outputs"]
        ],
        "properties": {
            "proxyWidgets": [[str(nodes[node]["id"]), widget] for node, widget in PROMOTED]
        },
        "widgets_values": [],
        "title": NAME,
    }


def _link(number: int, origin: int, origin_slot: int, target: int, slot: int, kind: str) -> dict:
    return {
        "id": number,
        "origin_id": origin,
        "origin_slot": origin_slot,
        "target_id": target,
        "target_slot": slot,
        "type": kind,
    }


def _id(name: str) -> str:
    """The same id at every run."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"graphquant/load_and_quantize/{name}"))


def main() -> None:
    with tempfile.TemporaryDirectory() as base, Server(base) as server:
        FILE.write_text(json.dumps(blueprint(server.object_info), indent=1) + "\n")
        print(f"wrote {FILE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
