"""What the machine can do, found out by trying, and which method it suggests."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from .errors import ArgumentError, require_kind
from .kernels.dispatch import triton_works
from .kernels.float8_way import float8_problem
from .kernels.product import unscaled_kinds


@dataclass(frozen=True)
class Hardware:
    """The device that a model will run on, and what it can do.

    device: "cpu", "cuda", "mps" and so on (ROCm also says "cuda"). fp8_matmul: whether the device
    itself multiplies FP8 by FP8 with a scale for each row. triton: whether Triton's kernels run.
    unscaled: of "fp8" and "int8" those whose products no kernel scales before they are written,
    which makes them slow (``product.unscaled_kinds``). fast_int8: whether it multiplies INT8 by
    INT8 at least twice as fast as bfloat16, by a kernel that scales before it writes.
    """

    device: str
    name: str
    fp8_matmul: bool
    triton: bool = False
    unscaled: tuple[str, ...] = ()
    fast_int8: bool = False

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


def device_named(device: torch.device | str | None) -> torch.device:
    """The device that ``device`` means; None for ``default_device``. ArgumentError where it names
    no device, or one that PyTorch does not see."""
    if device is None:
        return default_device()
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ArgumentError(
            f"device is {device!r:.60}. Name one of PyTorch's devices, such as cpu or cuda:0."
        ) from None
    if found.type == "cuda":
        try:
            torch.cuda.get_device_name(found)
        except (RuntimeError, AssertionError):  # no driver or index; a PyTorch without CUDA
            raise ArgumentError(
                f"device is {device!r:.60}, which PyTorch does not see. Name another, such as cpu, "
                "or install a PyTorch that sees the GPU."
            ) from None
    return found


def require_hardware(hardware: object) -> None:
    """ArgumentError where ``hardware`` is not a Hardware."""
    remedy = "Give a Hardware, such as hardware_of('cuda')."
    require_kind("hardware", hardware, Hardware, remedy)


def hardware_of(device: torch.device | str | None = None, compiled_int8: bool = False) -> Hardware:
    """Finds out what ``device`` can do (default: the accelerator, else the CPU).

    compiled_int8: whether the caller has INT8 kernels of its own for NVIDIA GPUs; those of this
    package that are fast need Triton.
    """
    device = device_named(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    fp8, triton = check_fp8_support(device), device.type == "cuda" and triton_works(device)
    unscaled = unscaled_kinds(device)
    fast_int8 = (compiled_int8 or "int8" not in unscaled) and _has_fast_int8(device)
    return Hardware(device.type, name, fp8, triton, unscaled, fast_int8)


def _has_fast_int8(device: torch.device) -> bool:
    if device.type != "cuda" or torch.version.hip:
        return False
    return int8_is_fast(torch.cuda.get_device_capability(device))


def int8_is_fast(capability: tuple[int, int]) -> bool:
    """Whether an NVIDIA GPU of this compute capability multiplies INT8 at twice the rate of
    bfloat16 or more, and FP8 no faster.

    From Turing (7.5) to Ada (8.9) and on Blackwell's GeForce and RTX PRO (12). Hopper (9.0)
    multiplies FP8 as fast, by better kernels; data-centre Blackwell (10 and 11) has little INT8.
    """
    return (7, 5) <= capability < (9, 0) or capability >= (12, 0)


def check_fp8_support(device: torch.device | str | None = None) -> bool:
    """Whether ``device`` multiplies FP8 by FP8 in hardware: a small matmul is run and compared.

    A CPU only emulates it, slower than bfloat16, and counts as no.
    """
    device = device_named(device)
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


@dataclass(frozen=True)
class Recommendation:
    """The method to start with on a device, and why: the rest of a sentence."""

    method: str
    why: str


def recommend(hardware: Hardware) -> Recommendation:
    """The method of least error among the fast ones. docs/choosing.md has the number behind each
    branch, and what would change it."""
    name = hardware.name
    if hardware.fast_int8:
        return Recommendation("int8-convrot", f"{name} multiplies INT8 fast; rotated it errs less.")
    if hardware.fp8_matmul and "fp8" not in hardware.unscaled:
        return Recommendation("fp8-dynamic", f"{name} runs FP8 matmuls in hardware.")
    return Recommendation("int8", f"{name} has no fast 8-bit matmul, and int8 loses least.")


def get_recommended_method(hardware: Hardware | None = None) -> str:
    """The method to start with on ``hardware`` (default: of the accelerator, else the CPU):
    "int8-convrot" where INT8 matmuls are fast, "fp8-dynamic" where only FP8 matmuls are, else
    "int8"."""
    hardware = hardware_of() if hardware is None else hardware
    require_hardware(hardware)
    return recommend(hardware).method
