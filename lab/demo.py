"""The main job, shown: a Flux on a real ComfyUI server, in bf16 and in every method.

    python -m lab.demo [--serve] [--port PORT]

Run through ``python3 dev.py demo``, which sets up what this needs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from dev import step

from . import workflows
from .comfyui import comfyui_version
from .pack import ROOT
from .sampling import relative_l2
from .server import PromptError, Server
from .tiny_models import FLUX, tiny_flux
from .ui_workflow import ui_workflow

BASE = ROOT / ".demo"
ROW = "{:<16}{:>10}{:>6}{:>11}{:>10}{:>12}{:>10}{:>9}  {}"
HEADER = (
    *("method", "quantized", "kept", "MB before", "MB after"),
    *("quantize s", "sample s", "rel. L2", "kernel"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", action="store_true", help="leave the server up")
    parser.add_argument("--port", type=int, help="the server's port (default: a free one)")
    options = parser.parse_args()

    _finish_the_tutorial(BASE)
    server = Server(BASE, port=options.port)
    try:
        with step("Writing a small Flux checkpoint"):
            tiny_flux(server.models / FLUX.file)
        with step(f"Starting ComfyUI {'.'.join(map(str, comfyui_version()))} with this pack"):
            server.start()
        failed = compare(server)
        if options.serve:
            serve(server)
        return 1 if failed else 0
    except (RuntimeError, LookupError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\n== stopped")
        return 0
    finally:
        server.stop()


def compare(server: Server) -> list[str]:
    """Print the table; returns the methods that did not run."""
    choices = methods(server)
    print(f"== Sampling 4 steps in bf16 and in each method (torch {torch.__version__})\n")
    print(ROW.format(*HEADER))
    server.run(workflows.plain(FLUX, seed=1))  # reads the file, so that no row pays for it
    entry = server.run(workflows.plain(FLUX))
    reference = server.latents(entry)[workflows.PLAIN]
    seconds = f"{_seconds(entry):.2f}"
    print(ROW.format("bf16", *"-----", seconds, "-", "ComfyUI's own"), flush=True)
    failed = []
    for method in choices:
        try:
            entry = server.run(workflows.quantized(FLUX, method))
        except PromptError as refusal:
            print(f"{method:<16} not run: {str(refusal).splitlines()[0]}", flush=True)
            failed.append(method)
            continue
        latent = server.latents(entry)[workflows.QUANTIZED]
        print(_row(method, entry, relative_l2(latent, reference)), flush=True)
    if not torch.cuda.is_available():
        print("\nWithout a GPU, ComfyUI holds the weights as float32: MB before counts those.")
    print()
    return failed


def methods(server: Server) -> list[str]:
    """The methods of the node's dropdown, but for the identity and what only names another."""
    kind, *options = server.object_info("GQQuantizeModel")["input"]["required"]["method"]
    choices = kind if isinstance(kind, list) else options[0]["options"]
    return [c for c in choices if c not in ("auto", "none") and not c.startswith("default")]


def serve(server: Server) -> None:
    """Keep the server up, with the demo's workflow in the editor's list, until Ctrl-C."""
    prompt = workflows.both(FLUX, "int8")
    prompt["report"] = {"class_type": "PreviewAny", "inputs": {"source": [workflows.QUANTIZE, 1]}}
    target = BASE / "user" / "default" / "workflows" / "GraphQuant demo.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(ui_workflow(prompt, server.object_info), indent=1))
    print(f"== ComfyUI is up at {server.url}: open Workflows (w) > {target.stem}. Ctrl-C ends it.")
    server.wait()


def _row(method: str, entry: dict, error: float) -> str:
    report = entry["outputs"][workflows.QUANTIZE]["graphquant"][0]
    return ROW.format(
        method,
        report["quantized_layers"],
        report["skipped_layers"],
        f"{report['model_bytes_before'] / 1e6:.1f}",
        f"{report['model_bytes_after'] / 1e6:.1f}",
        f"{report['seconds']:.2f}",
        f"{_seconds(entry) - report['seconds']:.2f}",
        f"{error:.4f}",
        report["kernel"] if report["runs_as"] == method else f"as {report['runs_as']}",
    )


def _seconds(entry: dict) -> float:
    times = {event: details["timestamp"] for event, details in entry["status"]["messages"]}
    return (times["execution_success"] - times["execution_start"]) / 1000


def _finish_the_tutorial(base: Path) -> None:
    """Otherwise the template browser covers the page on the first visit."""
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    if not settings.exists():
        settings.write_text(json.dumps({"Comfy.TutorialCompleted": True}))


if __name__ == "__main__":
    sys.exit(main())
