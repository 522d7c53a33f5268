"""ComfyUI's editor in a headless Chromium: what the browser tests and the README's pictures drive.

Playwright comes from the environment (dev.py installs it); Chromium is the machine's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .server import Server

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
READY = "window.app?.extensionManager?.setting && document.querySelector('#graph-canvas')"


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
    """A Playwright browser context factory: call it for a fresh, empty profile's page."""
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
    """One page with ComfyUI's editor in it. nodes2: the renderer "Nodes 2.0", else the classic."""

    def __init__(self, running, server: Server, *, nodes2: bool, size=(1400, 900), locale="en"):
        self.server = server
        _post_settings(
            server, {**SETTINGS, "Comfy.VueNodes.Enabled": nodes2, "Comfy.Locale": locale}
        )
        self.context = running.new_context(
            viewport={"width": size[0], "height": size[1]},
            permissions=["clipboard-read", "clipboard-write"],
        )
        self.context.route(lambda url: not url.startswith(server.url), lambda route: route.abort())
        self.page = self.context.new_page()
        self.messages: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(f"error: {error}"))
        self.page.goto(server.url)
        self._wait_until_ready()

    def close(self) -> None:
        self.context.close()

    def reload(self) -> None:
        self.page.reload()
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        self.page.wait_for_function(READY, timeout=60_000)
        self.page.wait_for_function(
            "window.LiteGraph?.registered_node_types?.GQQuantizeModel && window.app.graph"
        )
        self.page.wait_for_function("!document.querySelector('#splash-loader')")

    def evaluate(self, script: str, *arguments):
        """``script`` is a JavaScript function of one array, or of nothing."""
        return self.page.evaluate(script, list(arguments))

    def load(self, workflow: dict) -> None:
        """Open a workflow in the editor's format, and look at all of it."""
        self.evaluate("async ([workflow]) => { await app.loadGraphData(workflow) }", workflow)
        self.fit()

    def fit(self) -> None:
        self.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.page.wait_for_timeout(500)

    def serialize(self) -> dict:
        return self.evaluate("() => app.graph.serialize()")

    def prompt(self) -> dict:
        """The API prompt that the editor would queue."""
        return self.evaluate("async () => (await app.graphToPrompt()).output")

    def queue(self) -> None:
        self.evaluate("() => app.queuePrompt(0)")

    def run(self, timeout: float = 120.0) -> None:
        """Queue the open workflow and wait until the server has nothing left to do."""
        self.evaluate(
            """() => {
                window.labEnd = null
                for (const event of ["execution_success", "execution_error",
                                     "execution_interrupted"])
                    app.api.addEventListener(event, (e) => { window.labEnd ??= event },
                                             { once: true })
            }"""
        )
        self.queue()
        self.page.wait_for_function("window.labEnd", timeout=timeout * 1000)

    def set_widget(self, node: int, name: str, value) -> None:
        """As a user's change does: the value, then the widget's callback."""
        self.evaluate(
            """([id, name, value]) => {
                const node = app.graph.getNodeById(id)
                const widget = node.widgets.find((w) => w.name === name)
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


def _post_settings(server: Server, settings: dict) -> None:
    request = urllib.request.Request(
        f"{server.url}/api/settings",
        json.dumps(settings).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=60).close()


def empty_folder() -> Path:
    """A fresh folder for one server: its models, output and settings."""
    return Path(tempfile.mkdtemp(prefix="graphquant-"))
