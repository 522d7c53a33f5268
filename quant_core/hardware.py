"""What the machine can do, found out by trying, and which method it suggests."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from .kernels.dispatch import triton_works
from .kernels.float8_way import float8_problem
from .kernels.product import unscaled_kinds


@dataclass(frozen=True)
class Hardware:
    """The device that a model will run on, and what it can do.

    device: "cpu", "cuda", "mps" and so on (ROCm also says "cuda"). fp8_matmul: whether the device
    itself multiplies FP8 by FP8 with a scale for each row. triton: whether Triton's kernels run.
    unscaled: of "fp8" and "int8" those whose products no kernel scales before they are written,
    which makes them slow (``product.unscaled_kinds``).
    """

    device: str
    name: str
    fp8_matmul: bool
    triton: bool = False
    unscaled: tuple[str, ...] = ()

    def speed_problems(self, layers: Iterable) -> list[str]:
        """``speed_problem`` of each kind of product that ``layers``, planned, will use."""
        kinds = (layer.format.product_kind for layer in layers)
        return [text for kind in dict.fromkeys(kinds) if (text := self.speed_problem(kind))]

    def speed_problem(self, kind: str | None) -> str | None:
        """Why products of a ``Format.product_kind`` make no layer faster here, and what helps, in
        words; None where they may."""
        if kind not in self.unscaled:
            return None
        return (
            f"{kind.upper()} products are written before they are scaled and read again here, "
            "which moves over 1.5 times bfloat16's bytes. Install Triton (on Windows: "
            "pip install triton-windows)."
        )


def default_device() -> torch.device:
    """The accelerator that PyTorch sees, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def hardware_of(device: torch.device | str | None = None) -> Hardware:
    """Finds out what ``device`` can do (default: the accelerator, else the CPU)."""
    device = default_device() if device is None else torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    fp8, triton = check_fp8_support(device), device.type == "cuda" and triton_works(device)
    return Hardware(device.type, name, fp8, triton, unscaled_kinds(device))


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
    """The method to start with: "fp8-dynamic" where FP8 matmuls run in hardware and their results
    are scaled before they are written, else "int8"."""
    hardware = hardware_of() if hardware is None else hardware
    quick = hardware.fp8_matmul and "fp8" not in hardware.unscaled
    return "fp8-dynamic" if quick else "int8"
