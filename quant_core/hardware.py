"""What the machine can do, found out by trying, and which method it suggests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Hardware:
    """device: "cpu", "cuda", "mps", ... (ROCm also says "cuda"). fp8_matmul: an FP8 x FP8 matmul
    with row-wise scales runs on the device itself."""

    device: str
    name: str
    fp8_matmul: bool


def default_device() -> torch.device:
    """The accelerator that PyTorch sees, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def hardware_of(device: torch.device | str | None = None) -> Hardware:
    """Probe ``device`` (default: the accelerator, else the CPU)."""
    device = default_device() if device is None else torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    return Hardware(device.type, name, check_fp8_support(device))


@lru_cache
def check_fp8_support(device: torch.device | str | None = None) -> bool:
    """Whether ``device`` multiplies FP8 by FP8 in hardware: a 16 x 16 matmul is run and compared.

    A CPU only emulates it, slower than bfloat16, and counts as no.
    """
    device = default_device() if device is None else torch.device(device)
    if device.type != "cuda":
        return False
    try:
        ones = torch.ones(16, 16, device=device).to(torch.float8_e4m3fn)
        scale = torch.full((16, 1), 0.5, device=device)
        product = torch._scaled_mm(
            ones, ones.t(), scale_a=scale, scale_b=scale.t(), out_dtype=torch.bfloat16
        )
        return bool((product == 4).all())
    except RuntimeError:  # how PyTorch says that the device, or its library, has no such kernel
        return False


def get_recommended_method(hardware: Hardware | None = None) -> str:
    """The method to start with: "fp8-dynamic" where FP8 matmuls run in hardware, else "int8"."""
    hardware = hardware_of() if hardware is None else hardware
    return "fp8-dynamic" if hardware.fp8_matmul else "int8"
