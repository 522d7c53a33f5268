"""ComfyUI's editor in a page: what the browser tests and the README's pictures drive.

Every wait is for a state, not for a time, and ends after a minute: a slow machine may take that
long for what takes a fast one a moment.
"""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from .page_scripts import BOUNDED, DRAFT_KEPT, FIT, READY, SAVED, SETTLED
from .server import Server

PATIENCE = 60.0  # seconds

SETTINGS = {
    # Otherwise the template browser covers the page on the first visit.
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Workflow.Persist": True,
}


class Editor:
    """One page with ComfyUI's editor in it. nodes2: the renderer "Nodes 2.0", else the classic.
    size: of the page. scale: device pixels a page pixel. locale: the editor's language."""

    def __init__(
        self,
        running,
        server: Server,
        *,
        nodes2: bool,
        size: tuple[int, int] = (1400, 900),
        scale: int = 1,
        locale: str = "en",
    ):
        self.server = server
        self.settings = {**SETTINGS, "Comfy.VueNodes.Enabled": nodes2, "Comfy.Locale": locale}
        self.context = running.new_context(
            viewport={"width": size[0], "height": size[1]},
            device_scale_factor=scale,
            permissions=["clipboard-read", "clipboard-write"],
        )
        self.context.route(lambda url: not url.startswith(server.url), lambda route: route.abort())
        self.context.set_default_timeout(PATIENCE * 1000)
        self.page = self.context.new_page()
        self.messages: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(f"error: {error}"))
        self.reload()

    def close(self) -> None:
        self.context.close()

    def reload(self) -> None:
        """Load the page (again), in this editor's renderer and language."""
        _post_settings(self.server, self.settings)
        self.page.goto(self.server.url)
        self.page.wait_for_function(READY)

    def evaluate(self, script: str, *arguments):
        """``script``: a JavaScript function of one array of the arguments, or of nothing."""
        return self.page.evaluate(BOUNDED % script, [list(arguments), PATIENCE])

    def load(self, workflow: dict) -> None:
        """Open a workflow in the editor's format, as the only tab, and look at all of it."""
        self.evaluate(
            """async ([workflow]) => {
                await app.loadGraphData(workflow)
                const tabs = app.extensionManager.workflow
                for (const tab of [...tabs.openWorkflows])
                    if (tab !== tabs.activeWorkflow) await tabs.closeWorkflow(tab)
            }""",
            workflow,
        )
        self.settle()
        self.evaluate(FIT)
        self.settle()

    def settle(self) -> None:
        """Wait until the canvas and its nodes no longer move."""
        self.evaluate(SETTLED)

    def arrange(self, sizes: dict[int, tuple[int, int]], left: int, top: int) -> None:
        """Set nodes of at least these sizes side by side, this far from the page's corner."""
        self.evaluate(
            """([sizes, left, top]) => {
                const nodes = sizes.map(([id]) => app.graph.getNodeById(id))
                let [x, y] = nodes[0].pos
                app.canvas.ds.scale = 1
                app.canvas.ds.offset = [left - x, top - y]
                for (const [place, node] of nodes.entries()) {
                    node.setSize(sizes[place][1])
                    node.pos = [x, y]
                    x += sizes[place][1][0] + 40
                }
                app.canvas.setDirty(true, true)
            }""",
            list(sizes.items()),
            left,
            top,
        )
        self.settle()

    def execute(self, command: str) -> None:
        self.evaluate("([id]) => void app.extensionManager.command.execute(id)", command)

    def set_setting(self, name: str, value) -> None:
        self.evaluate("([id, value]) => app.extensionManager.setting.set(id, value)", name, value)

    def serialize(self) -> dict:
        return self.evaluate("() => app.graph.serialize()")

    def prompt(self) -> dict:
        """The API prompt that the editor would queue."""
        return self.evaluate("async () => (await app.graphToPrompt()).output")

    def queue(self) -> None:
        """Queue the open workflow as the Run button does; ``end`` waits for what becomes of it."""
        self.evaluate(
            """() => {
                window.labEnd = null
                for (const event of ["execution_success", "execution_error",
                                     "execution_interrupted"])
                    app.api.addEventListener(event, () => { window.labEnd ??= event },
                                             { once: true })
                app.queuePrompt(0)
            }"""
        )

    def end(self, timeout: float = 120.0) -> str:
        """The event that ends the queued run: execution_success, _error or _interrupted."""
        self.page.wait_for_function("window.labEnd", timeout=timeout * 1000)
        return self.evaluate("() => window.labEnd")

    def run(self) -> str:
        self.queue()
        return self.end()

    def set_widget(self, node: int, name: str, value) -> None:
        """As a user's change does: the value, then the widget's callback."""
        self.evaluate(
            """([id, name, value]) => {
                const node = app.graph.getNodeById(id)
                const widget = node.widgets.find((each) => each.name === name)
                widget.value = value
                widget.callback?.(value, app.canvas, node)
            }""",
            node,
            name,
            value,
        )

    def panel(self, node: int):
        """The pack's panel on that node, as a Playwright locator."""
        return self.page.locator(f'.graphquant-panel[data-node="{node}"]')

    def node_box(self, node: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the node on the page, its title included."""
        if self.settings["Comfy.VueNodes.Enabled"]:
            box = self.page.locator(f'[data-node-id="{node}"]').first.bounding_box()
            left, top = box["x"], box["y"]
            return left, top, left + box["width"], top + box["height"]
        return tuple(
            self.evaluate(
                """([id]) => {
                    const node = app.graph.getNodeById(id)
                    const { scale, offset } = app.canvas.ds
                    const at = app.canvas.canvas.getBoundingClientRect()
                    const [x, y] = [node.pos[0] + offset[0], node.pos[1] + offset[1]]
                    const [right, bottom] = [x + node.size[0], y + node.size[1]]
                    const top = y - LiteGraph.NODE_TITLE_HEIGHT
                    return [at.left + x * scale, at.top + top * scale,
                            at.left + right * scale, at.top + bottom * scale]
                }""",
                node,
            )
        )

    def add(self, kind: str) -> int:
        """A new node of this class, in view and above the others; returns its id."""
        return self.evaluate(
            """([kind]) => {
                const node = LiteGraph.createNode(kind)
                const { scale, offset } = app.canvas.ds
                node.pos = [660 / scale - offset[0], 420 / scale - offset[1]]
                return app.graph.add(node).id
            }""",
            kind,
        )

    def remove(self, node: int) -> None:
        self.evaluate("([id]) => app.graph.remove(app.graph.getNodeById(id))", node)

    def select(self, node: int) -> None:
        """Click the node's title."""
        left, top, *_ = self.node_box(node)
        self.page.mouse.click(left + 60, top + 8)

    def open_menu(self, node: int) -> None:
        """Right-click the node's title."""
        left, top, *_ = self.node_box(node)
        self.page.mouse.click(left + 60, top + 8, button="right")

    def choose(self, node: int, item: str) -> None:
        """Choose from the node's right-click menu."""
        self.open_menu(node)
        self.page.get_by_text(item, exact=True).click()

    def save_as(self, name: str) -> dict:
        """Save the open workflow on the server under a new name; returns what was written."""
        self.execute("Comfy.SaveWorkflowAs")
        box = self.page.get_by_role("dialog").locator("input").last
        box.fill(name)
        box.press("Enter")
        self.page.wait_for_function(SAVED, arg=name)
        file = self.server.base / "user" / "default" / "workflows" / f"{name}.json"
        return json.loads(file.read_text())

    def save(self) -> None:
        """Save the open workflow, which has a name."""
        self.notice_changes()
        self.execute("Comfy.SaveWorkflow")
        self.page.wait_for_function(SAVED)

    def is_modified(self) -> bool:
        """Whether the editor asks to save the open workflow."""
        return self.evaluate("() => app.extensionManager.workflow.activeWorkflow.isModified")

    def notice_changes(self) -> None:
        """As after a click: the editor compares the graph with what it was."""
        self.evaluate(
            "() => app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()"
        )

    def keep_draft(self) -> None:
        """Wait until the editor has stored the open workflow for the next page load."""
        self.notice_changes()
        self.page.wait_for_function(DRAFT_KEPT)

    def screenshot(self, file: Path, **options) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=file, **options)


def _post_settings(server: Server, settings: dict) -> None:
    request = urllib.request.Request(
        f"{server.url}/api/settings",
        json.dumps(settings).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=60).close()
