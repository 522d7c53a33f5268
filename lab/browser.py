"""A headless Chromium. Playwright comes from the environment (dev.py installs it), Chromium is the
machine's own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = (
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
)


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
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 300}
    with suppress(subprocess.TimeoutExpired):
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
    """A running Chromium, as Playwright has it; ``lab.editor.Editor`` opens a page in it."""
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
