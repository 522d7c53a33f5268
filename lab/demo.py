"""The main job, shown: a trained Flux on a real ComfyUI server, in bf16 and in five methods.

    python -m lab.demo [--all] [--serve] [--port PORT]

Run through ``python3 dev.py demo``, which sets up what this needs.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from dev import step

from .comfyui import comfyui_version
from .miniature import STEPS, install, workflow
from .miniature.classifier import read
from .miniature.pictures import style_score
from .pack import ROOT
from .picture_grid import save_grid
from .sampling import relative_l2
from .server import PromptError, Server
from .ui_workflow import ui_workflow

BASE = ROOT / ".demo"
GRID = BASE / "demo.png"
DIGITS = "0123456789"
MIB = 1024 * 1024
SHOWN = ("fp8-dynamic", "fp8-weight-only", "int8", "int8-dynamic", "int4")
ROW = "{:<16}{:>10}{:>6}{:>11}{:>10}{:>12}{:>10}{:>9}{:>6}{:>7}  {}"
HEADER = (
    *("method", "quantized", "kept", "MiB before", "MiB after"),
    *("quantize s", "sample s", "rel. L2", "read", "slant", "kernel"),
)


@dataclass(frozen=True)
class Drawing:
    """entry and latent: of the run without the LoRA; pictures: without, then with it."""

    entry: dict
    latent: torch.Tensor
    pictures: torch.Tensor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every method, not five")
    parser.add_argument("--serve", action="store_true", help="leave the server up")
    parser.add_argument("--port", type=int, help="the server's port (default: a free one)")
    options = parser.parse_args()

    _finish_the_tutorial(BASE)
    server = Server(BASE, port=options.port)
    try:
        install(BASE / "models")
        with step(f"Starting ComfyUI {'.'.join(map(str, comfyui_version()))} with this pack"):
            server.start()
        choices = methods(server)
        failed = compare(server, choices if options.all else shown(choices))
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


def compare(server: Server, choices: list[str]) -> list[str]:
    """Print the table and write the grid; returns the methods that did not run."""
    print(f"== {len(DIGITS)} digits, {STEPS} steps, then in italics (torch {torch.__version__})")
    print(f"== {1 + len(choices)} rows, some seconds each\n")
    print(ROW.format(*HEADER))
    draw(server, None, seed=1)  # reads the files, so that no row pays for it
    reference = draw(server, None)
    print(ROW.format("bf16", *"-----", *_drawn(reference, reference), "ComfyUI's own"), flush=True)
    rows, failed = {"bf16": reference.pictures}, []
    for method in choices:
        try:
            drawing = draw(server, method)
        except PromptError as refusal:
            print(f"{method:<16} not run: {str(refusal).splitlines()[0]}", flush=True)
            failed.append(method)
            continue
        rows[method] = drawing.pictures
        print(_row(method, drawing, reference), flush=True)
    if not torch.cuda.is_available():
        print("\nWithout a GPU, ComfyUI holds the weights as float32: MiB before counts those.")
    save_grid(rows, GRID)
    print(f"read: digits that a small classifier reads as asked, of {2 * len(DIGITS)}.")
    print("slant: of the pictures with the LoRA; 0 is upright, 1 is its training pictures'.")
    print(f"== The pictures lie side by side in {GRID}\n")
    return failed


def draw(server: Server, method: str | None, seed: int = 0) -> Drawing:
    """Draw the digits without and with the LoRA, through one quantized MODEL."""
    plain = server.run(workflow.draw(DIGITS, method, seed=seed))
    italic = server.run(workflow.draw(DIGITS, method, lora=True, seed=seed))
    pictures = [server.pictures(entry)[workflow.SAVE_PICTURES] for entry in (plain, italic)]
    return Drawing(plain, server.latents(plain)[workflow.SAVE_LATENT], torch.cat(pictures))


def methods(server: Server) -> list[str]:
    """The methods of the node's dropdown, but for the identity, what only names another, and
    fp8-static, which needs Calibrate Activations before it."""
    kind, *options = server.object_info("GQQuantizeModel")["input"]["required"]["method"]
    choices = kind if isinstance(kind, list) else options[0]["options"]
    others = ("auto", "none", "fp8-static")
    return [c for c in choices if c not in others and not c.startswith("default")]


def shown(choices: list[str]) -> list[str]:
    """Five of ``choices``, which tell what there is; all have a row with --all."""
    return [method for method in SHOWN if method in choices]


def serve(server: Server) -> None:
    """Keep the server up, with the demo's workflow in the editor's list, until Ctrl-C."""
    prompt = workflow.draw(DIGITS, "int8", lora=True)
    prompt["report"] = {"class_type": "PreviewAny", "inputs": {"source": [workflow.QUANTIZE, 1]}}
    target = BASE / "user" / "default" / "workflows" / "GraphQuant demo.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(ui_workflow(prompt, server.object_info), indent=1))
    print(f"== ComfyUI is up at {server.url}: open Workflows (w) > {target.stem}. Ctrl-C ends it.")
    server.wait()


def _row(method: str, drawing: Drawing, reference: Drawing) -> str:
    report = drawing.entry["outputs"][workflow.QUANTIZE]["graphquant"][0]
    return ROW.format(
        method,
        report["quantized_layers"],
        report["skipped_layers"],
        f"{report['model_bytes_before'] / MIB:.1f}",
        f"{report['model_bytes_after'] / MIB:.1f}",
        f"{report['seconds']:.2f}",
        *_drawn(drawing, reference, report["seconds"]),
        report["kernel"] if report["runs_as"] == method else f"as {report['runs_as']}",
    )


def _drawn(drawing: Drawing, reference: Drawing, quantize_seconds: float = 0.0) -> list[str]:
    right = (read(drawing.pictures) == torch.tensor([*map(int, 2 * DIGITS)])).sum().item()
    italic = style_score(drawing.pictures[len(DIGITS) :]).mean().item()
    error = relative_l2(drawing.latent, reference.latent)
    return [
        f"{_seconds(drawing.entry) - quantize_seconds:.2f}",
        f"{error:.4f}",
        f"{right}",
        f"{italic:.2f}",
    ]


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
