"""What the machine can do, found out by trying, and which method it suggests."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

import torch

from .kernels.float8_way import float8_problem


@dataclass(frozen=True)
class Hardware:
    """The device that a model will run on, and what it can do.

    device: "cpu", "cuda", "mps" and so on (ROCm also says "cuda"). fp8_matmul: whether the device
    itself multiplies FP8 by FP8 with a scale for each row.
    """

    device: str
    name: str
    fp8_matmul: bool


def default_device() -> torch.device:
    """The accelerator that PyTorch sees, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def hardware_of(device: torch.device | str | None = None) -> Hardware:
    """Finds out what ``device`` can do (default: the accelerator, else the CPU)."""
    device = default_device() if device is None else torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    return Hardware(device.type, name, check_fp8_support(device))


def check_fp8_support(device: torch.device | str | None = None) -> bool:
    """Whether ``device`` multiplies FP8 by FP8 in hardware: a small matmul is run and compared.

    A CPU only emulates it, slower than bfloat16, and counts as no.
    """
    device = default_device() if device is None else torch.device(device)
    return fp8_matmul_problem(device) is None


def fp8_matmul_problem(device: torch.device) -> str | None:
    """Why ``device`` does not multiply FP8 by FP8 in hardware, in words; None where it does."""
    if device.type == "cpu":
        return "A CPU has no FP8 matmul in hardware."
    if device.type != "cuda":
        return f"PyTorch has no FP8 matmul on {device.type}."
    problem = float8_problem(device)
    return None if problem is None else in_short(problem)


def in_short(problem: Exception) -> str:
    """The first sentence of what an exception says: PyTorch's go on to list every backend."""
    sentence = re.split(r"\.\s|\n", str(problem).strip())[0]
    return textwrap.shorten(sentence, 160) or type(problem).__name__


def get_recommended_method(hardware: Hardware | None = None) -> str:
    """The method to start with: "fp8-dynamic" where FP8 matmuls run in hardware, else "int8"."""
    hardware = hardware_of() if hardware is None else hardware
    return "fp8-dynamic" if hardware.fp8_matmul else "int8"
