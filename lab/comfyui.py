"""ComfyUI in this process: where it lies, and how to import it before anything shadows it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch


def comfyui_path() -> Path:
    """The ComfyUI folder that dev.py chose, from the environment variable GRAPHQUANT_COMFYUI.

    Raises RuntimeError when the variable is missing or names no ComfyUI.
    """
    named = os.environ.get("GRAPHQUANT_COMFYUI", "")
    path = Path(named)
    if not named or not (path / "comfy" / "sd.py").is_file():
        raise RuntimeError(
            f"GRAPHQUANT_COMFYUI={named!r} is not a ComfyUI folder: run `python3 dev.py test` "
            "or `python3 dev.py demo`, or set it to a folder that holds ComfyUI's main.py"
        )
    return path.resolve()


def comfyui_version() -> tuple[int, ...]:
    """The version of that ComfyUI as numbers, e.g. ``(0, 30, 0)``."""
    text = (comfyui_path() / "comfyui_version.py").read_text()
    return tuple(int(part) for part in text.split('"')[1].split("."))


def device_arguments() -> list[str]:
    """The command-line arguments that ComfyUI needs on this machine."""
    return [] if torch.cuda.is_available() else ["--cpu"]


def import_comfyui() -> Path:
    """Make ``comfy``, ``comfy_api`` and ``nodes`` ComfyUI's own; returns the ComfyUI folder.

    Raises RuntimeError when another ``nodes`` (say, this repository's folder) was imported first.
    """
    path = comfyui_path()
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))
    if "comfy.cli_args" not in sys.modules:
        _parse_arguments()
    import nodes

    if Path(nodes.__file__ or "").parent != path:
        raise RuntimeError(
            f"`nodes` is {nodes.__path__}, not ComfyUI's: import ours as `graphquant.nodes`"
        )
    return path


def _parse_arguments() -> None:
    """ComfyUI reads ``sys.argv`` once, when ``comfy.cli_args`` is imported."""
    import comfy.options

    comfy.options.enable_args_parsing()
    ours = sys.argv
    sys.argv = [ours[0], *device_arguments()]
    try:
        import comfy.cli_args
    finally:
        sys.argv = ours
