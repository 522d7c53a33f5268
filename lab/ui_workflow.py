"""An API prompt as the JSON that ComfyUI's editor opens: the same nodes, laid out."""

from __future__ import annotations

from collections.abc import Callable

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
SEEDS = {"seed", "noise_seed"}  # the editor gives these a control widget without being asked
COLUMN_WIDTH, ROW_HEIGHT = 380, 320


def ui_workflow(prompt: dict, object_info: Callable[[str], dict]) -> dict:
    """The workflow JSON of ``prompt``; ``object_info(class_type)`` describes one node class.

    Widgets that the prompt leaves out get their default; editor ids count from 1 in its order.
    """
    ids = {name: number for number, name in enumerate(prompt, 1)}
    infos = {name: object_info(node["class_type"]) for name, node in prompt.items()}
    nodes, links = [], []
    rows: dict[int, int] = {}
    for order, (name, node) in enumerate(prompt.items()):
        info = infos[name]
        column = _depth(prompt, name)
        row = rows[column] = rows.get(column, -1) + 1
        inputs = _sockets(info)
        for slot, socket in enumerate(inputs):
            value = node["inputs"].get(socket["name"])
            if isinstance(value, list):
                origin, origin_slot = value
                socket["link"] = len(links) + 1
                kind = infos[origin]["output"][origin_slot]
                links.append([len(links) + 1, ids[origin], origin_slot, ids[name], slot, kind])
        nodes.append(
            {
                "id": ids[name],
                "type": node["class_type"],
                "pos": [column * COLUMN_WIDTH, row * ROW_HEIGHT],
                "size": [COLUMN_WIDTH - 60, ROW_HEIGHT - 60],
                "flags": {},
                "order": order,
                "mode": 0,
                "inputs": inputs,
                "outputs": [
                    {"name": label, "type": kind, "links": []}
                    for label, kind in zip(info["output_name"], info["output"], strict=True)
                ],
                "properties": {"Node name for S&R": node["class_type"]},
                "widgets_values": _widget_values(info, node["inputs"]),
            }
        )
    for number, origin, origin_slot, *_ in links:
        nodes[origin - 1]["outputs"][origin_slot]["links"].append(number)
    return {
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _depth(prompt: dict, name: str) -> int:
    origins = [value[0] for value in prompt[name]["inputs"].values() if isinstance(value, list)]
    return 1 + max((_depth(prompt, origin) for origin in origins), default=-1)


def _declared(info: dict) -> dict[str, tuple[str, dict]]:
    """Every declared input's type (a list of choices counts as COMBO) and options, in order."""
    declared = {}
    for group in ("required", "optional"):
        for name, (kind, *options) in info["input"].get(group, {}).items():
            combo = isinstance(kind, list)
            details = dict(options[0]) if options else {}
            if combo:
                details.setdefault("default", kind[0] if kind else None)
            declared[name] = ("COMBO" if combo else kind, details)
    return declared


def _sockets(info: dict) -> list[dict]:
    return [
        {"name": name, "type": kind, "link": None}
        for name, (kind, _) in _declared(info).items()
        if kind not in WIDGET_TYPES
    ]


def _widget_values(info: dict, given: dict) -> list:
    values = []
    for name, (kind, options) in _declared(info).items():
        if kind not in WIDGET_TYPES:
            continue
        default = options.get("default", (options.get("options") or [None])[0])
        values.append(given.get(name, default))
        if options.get("control_after_generate", name in SEEDS):
            values.append("fixed")
    return values
