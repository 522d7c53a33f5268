"""ComfyUI's editor in a headless Chromium: what the browser tests and the README's pictures drive.

Playwright comes from the environment (dev.py installs it); Chromium is the machine's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .pack import ROOT
from .server import Server

ARTEFACTS = ROOT / ".browser"

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = (
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
)
SETTINGS = {
    # Otherwise the template browser covers the page on the first visit.
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Workflow.Persist": True,
}
READY = """() => window.app?.extensionManager?.setting && document.querySelector("#graph-canvas") &&
    window.LiteGraph?.registered_node_types.GQQuantizeModel && window.app.vueAppReady &&
    !document.querySelector("#splash-loader")"""


class BrowserMissingError(RuntimeError):
    """No browser to drive; the message is the reason, and what would give one."""


def find_chromium() -> str:
    """The path of a Chromium or Chrome; root on Debian gets one installed.

    BrowserMissingError where there is none and none can be had.
    """
    found = _on_path()
    if found:
        return found
    if not shutil.which("apt-get") or os.name != "posix" or os.geteuid() != 0:
        raise BrowserMissingError("no Chromium on PATH: install chromium or Google Chrome")
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 600}
    for command in (["update"], ["install", "-y", "chromium"]):
        subprocess.run(["apt-get", *command], **options)
    found = _on_path()
    if not found:
        raise BrowserMissingError("no Chromium on PATH, and apt-get install chromium failed")
    return found


def _on_path() -> str | None:
    return next(filter(None, map(shutil.which, CHROMIUMS)), None)


@contextmanager
def browser() -> Iterator:
    """A running Chromium, as Playwright's browser; ``Editor`` opens a page in a fresh profile."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise BrowserMissingError(f"Playwright cannot be imported ({error})") from None
    executable = find_chromium()
    sandbox = [] if os.name != "posix" or os.geteuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=executable, headless=True, args=[*ARGUMENTS, *sandbox]
        )
        try:
            yield running
        finally:
            running.close()


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
        self.page.wait_for_function(READY, timeout=60_000)

    def evaluate(self, script: str, *arguments):
        """``script``: a JavaScript function of one array of the arguments, or of nothing."""
        return self.page.evaluate(script, list(arguments))

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
        self.execute("Comfy.Canvas.FitView")
        self.page.wait_for_timeout(500)

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

    def select(self, node: int) -> None:
        self.evaluate("([id]) => app.canvas.select(app.graph.getNodeById(id))", node)

    def open_menu(self, node: int) -> None:
        """Right-click the node's title."""
        left, top, *_ = self.node_box(node)
        self.page.mouse.click(left + 60, top + 8, button="right")

    def save_as(self, name: str) -> dict:
        """Save the open workflow on the server under a new name; returns what was written."""
        self.execute("Comfy.SaveWorkflowAs")
        box = self.page.get_by_role("dialog").locator("input").last
        box.fill(name)
        box.press("Enter")
        file = self.server.base / "user" / "default" / "workflows" / f"{name}.json"
        deadline = time.monotonic() + 20
        while not file.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the editor did not write {file}")
            self.page.wait_for_timeout(100)
        self.page.wait_for_timeout(300)
        return json.loads(file.read_text())

    def keep_draft(self) -> None:
        """Wait until the editor has stored the open workflow for the next page load."""
        self.evaluate(
            "() => app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()"
        )
        self.page.wait_for_timeout(1500)

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
