"""A real ComfyUI server in a folder of its own, driven over its HTTP API."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from .comfyui import comfyui_path, device_arguments
from .pack import ROOT

LAB_NODES = "graphquant_lab"


class PromptError(RuntimeError):
    """A prompt that ComfyUI refused, that failed in a node, or that was interrupted.

    ``details`` is ComfyUI's own account: the body of its answer, or its status message.
    """

    def __init__(self, message: str, details: dict):
        super().__init__(message)
        self.details = details


class Server:
    """ComfyUI on a free port with its models, custom nodes and output under ``base``.

    ``pack_folder`` is the name that ``pack`` gets in custom_nodes (None leaves the pack out);
    ``arguments`` are further ComfyUI command-line arguments. Use it as a context manager.
    """

    def __init__(
        self,
        base: str | Path,
        pack_folder: str | None = "GraphQuant",
        port: int | None = None,
        arguments: Sequence[str] = (),
        pack: Path = ROOT,
    ):
        self.base = Path(base).resolve()
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = self.base / "server.log"
        self.models = self.base / "models" / "diffusion_models"
        self.arguments = tuple(arguments)
        self._folders = {LAB_NODES: ROOT / "lab" / "nodes"}
        if pack_folder:
            self._folders[pack_folder] = pack
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self, timeout: float = 300.0) -> None:
        """Start it and wait until it answers; RuntimeError with the log's end when it does not."""
        self.models.mkdir(parents=True, exist_ok=True)
        custom_nodes = self.base / "custom_nodes"
        custom_nodes.mkdir(exist_ok=True)
        for name, target in self._folders.items():
            link = custom_nodes / name
            link.unlink(missing_ok=True)
            link.symlink_to(target, target_is_directory=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=comfyui_path(),
                env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        try:
            self._wait_until_up(timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server; killed when it does not go within 10 seconds."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def pid(self) -> int:
        """The server's process id, while it runs."""
        return self._process.pid

    def wait(self) -> None:
        """Block until the server ends by itself."""
        self._process.wait()

    def object_info(self, node: str) -> dict:
        """What ComfyUI tells the frontend about one node class; LookupError when it has none."""
        found = self._get(f"/object_info/{node}")
        if node not in found:
            lines = self.log.read_text(errors="replace").splitlines()
            about_packs = "\n".join(line for line in lines if "custom_nodes" in line)
            raise LookupError(f"this ComfyUI has no node {node}; its log says:\n{about_packs}")
        return found[node]

    def queue(self, prompt: dict) -> str:
        """Queue an API-format prompt and return its id; PromptError when it does not validate."""
        try:
            return self._post("/prompt", {"prompt": prompt})["prompt_id"]
        except urllib.error.HTTPError as error:
            details = json.load(error)
            raise PromptError(_refusal(details), details) from None

    def history(self, prompt_id: str) -> dict | None:
        """The finished prompt's entry (keys status, outputs), or None while it is under way."""
        return self._get(f"/history/{prompt_id}").get(prompt_id)

    def wait_for(self, prompt_id: str, timeout: float = 300.0) -> dict:
        """The history entry, once finished; PromptError with the node's own words if it failed."""
        deadline = time.monotonic() + timeout
        while (entry := self.history(prompt_id)) is None:
            if time.monotonic() > deadline:
                self.interrupt()
                raise TimeoutError(f"prompt not finished after {timeout:.0f} s\n{self._log_end()}")
            time.sleep(0.05)
        for event, details in entry["status"]["messages"]:
            if event == "execution_interrupted":
                raise PromptError(f"interrupted in {details['node_type']}", details)
            if event == "execution_error":
                kind, message = details["exception_type"], details["exception_message"]
                raise PromptError(f"{details['node_type']}: {kind}: {message}", details)
        return entry

    def run(self, prompt: dict, timeout: float = 300.0) -> dict:
        """Queue a prompt and wait for its history entry."""
        return self.wait_for(self.queue(prompt), timeout)

    def interrupt(self) -> None:
        """Cancel the running prompt, as the UI's button does."""
        self._post("/interrupt", {})

    def cancel(self, prompt_id: str, timeout: float = 300.0) -> None:
        """Interrupt until that prompt has ended: ComfyUI forgets one that comes too early."""
        deadline = time.monotonic() + timeout
        while self.history(prompt_id) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"prompt still running after {timeout:.0f} s of interrupting")
            self.interrupt()
            time.sleep(0.05)

    def forget(self) -> None:
        """Drop cached results and loaded models, so that the next prompt runs every node.

        ComfyUI only notes the request; it acts between prompts, so one passes through.
        """
        self._post("/free", {"unload_models": True, "free_memory": True})
        empty = {"width": 16, "height": 16, "batch_size": 1}
        self.run(
            {
                "1": {"class_type": "EmptySD3LatentImage", "inputs": empty},
                "2": {
                    "class_type": "SaveLatent",
                    "inputs": {"samples": ["1", 0], "filename_prefix": "forget"},
                },
            }
        )

    def latents(self, entry: dict) -> dict[str, torch.Tensor]:
        """What each SaveLatent of a finished prompt wrote, by node id."""
        return {
            node: load_file(self.base / "output" / saved["subfolder"] / saved["filename"])[
                "latent_tensor"
            ]
            for node, output in entry["outputs"].items()
            for saved in output.get("latents", ())
        }

    def pictures(self, entry: dict) -> dict[str, torch.Tensor]:
        """What each SaveImage of a finished prompt wrote, by node id: (N, 3, H, W) in 0 to 1."""
        return {
            node: torch.stack(
                [
                    _picture(self.base / "output" / saved["subfolder"] / saved["filename"])
                    for saved in output["images"]
                ]
            )
            for node, output in entry["outputs"].items()
            if output.get("images")
        }

    def _command(self) -> list[str]:
        return [
            *(sys.executable, "main.py", "--port", str(self.port), *device_arguments()),
            *("--base-directory", str(self.base), "--database-url", "sqlite:///:memory:"),
            *("--disable-api-nodes", "--disable-all-custom-nodes"),
            *self._frontend(),
            *self.arguments,
            *("--whitelist-custom-nodes", *self._folders),
        ]

    def _frontend(self) -> list[str]:
        """ComfyUI's own, where it is installed; prompts run without one."""
        if find_spec("comfyui_frontend_package") is not None:
            return []
        empty = self.base / "no_frontend"
        empty.mkdir(exist_ok=True)
        return ["--front-end-root", str(empty)]

    def _wait_until_up(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError):
                if self._process.poll() is not None:
                    code = self._process.returncode
                    raise RuntimeError(
                        f"ComfyUI ended with code {code} before it answered; its log ends:\n"
                        f"{self._log_end()}"
                    ) from None
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"ComfyUI did not answer on {self.url} within {timeout:.0f} s; "
                        f"its log ends:\n{self._log_end()}"
                    ) from None
            time.sleep(0.1)

    def _log_end(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _get(self, path: str) -> dict:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def _post(self, path: str, data: dict) -> dict:
        request = urllib.request.Request(self.url + path, json.dumps(data).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"{}")


def _picture(path: Path) -> torch.Tensor:
    from PIL import Image

    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).movedim(-1, 0) / 255


def _refusal(details: dict) -> str:
    """ComfyUI's 400 answer in one line: the first node error, else the general one."""
    for node in details.get("node_errors", {}).values():
        first = node["errors"][0]
        return f"{node['class_type']}: {first['message']}: {first['details']}"
    return f"{details['error']['message']}: {details['error']['details']}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _die_with_parent() -> None:
    """In the child, on Linux: a killed test run leaves no server behind."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
