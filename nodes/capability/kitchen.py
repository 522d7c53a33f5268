"""Which of comfy-kitchen's backends each of ComfyUI's own operations really gets on a device.

comfy-kitchen is asked as ComfyUI asks it, with tensors on the device, and then the operation runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version

import comfy.model_management
import comfy_kitchen
import torch
from comfy_kitchen import registry
from comfy_kitchen.scaled_mm_v2 import scaled_mm_v2

from ...quant_core.hardware import Hardware, in_short
from ...quant_core.timing import wait_for

PLAIN = "eager"  # comfy-kitchen's word for plain PyTorch, without kernels of its own

_SWITCHES = {
    "cuda": (
        "ComfyUI uses it from CUDA 13 on, and this PyTorch has CUDA {cuda}",
        "Needs cu130: install a PyTorch for CUDA 13 or newer.",
    ),
    "triton": (
        "ComfyUI leaves it off unless it is told otherwise",
        "Start ComfyUI with --enable-triton-backend.",
    ),
}
_INSTALL_TRITON = (
    "Install Triton (on Windows: triton-windows), and start ComfyUI with --enable-triton-backend."
)


@dataclass(frozen=True)
class Backend:
    """One of comfy-kitchen's backends. reason: why it is not used. remedy: what brings it into use.
    Both are empty where there is nothing to say."""

    name: str
    used: bool
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Operation:
    """One of comfy-kitchen's operations. backend: what runs it, or None. reason: why nothing does,
    or nothing faster than PLAIN."""

    name: str
    backend: str | None
    reason: str = ""


@dataclass(frozen=True)
class Kitchen:
    """What comfy-kitchen does on a device. emulated: the checkpoint formats whose layers ComfyUI
    dequantizes and computes in full precision on this device."""

    version: str
    backends: tuple[Backend, ...]
    operations: tuple[Operation, ...]
    emulated: tuple[str, ...]

    def to_dict(self) -> dict:
        """Plain values only."""
        return asdict(self)


def examine_kitchen(device: torch.device) -> Kitchen:
    """What comfy-kitchen does on ``device``. Raises nothing: what fails is in the result."""
    backends = kitchen_backends()
    others = [backend.name for backend in backends if backend.used and backend.name != PLAIN]
    return Kitchen(
        version("comfy-kitchen"),
        backends,
        tuple(_operation(name, device, others) for name in _CALLS),
        _emulated(device),
    )


def kitchen_backends() -> tuple[Backend, ...]:
    """All backends by name; they are the same for every device."""
    states = comfy_kitchen.list_backends()
    return tuple(_backend(name, states[name]) for name in sorted(states))


def installed_kernels(hardware: Hardware) -> str:
    """What computes quantized layers on a GPU beside PyTorch, in a sentence."""
    compiled = any(each.used and each.name == "cuda" for each in kitchen_backends())
    there = ["Triton"] if hardware.triton else []
    there += ["comfy-kitchen's CUDA kernels"] if compiled else []
    if not there:
        return "Neither Triton nor comfy-kitchen's CUDA kernels run here."
    return " and ".join(there) + (" run here." if len(there) > 1 or compiled else " runs here.")


def _backend(name: str, state: dict) -> Backend:
    """state: of ``comfy_kitchen.list_backends``."""
    if state["available"] and not state["disabled"]:
        return Backend(name, used=True)
    if state["available"]:
        reason, remedy = _SWITCHES.get(name, ("It is switched off", ""))
        # ComfyUI keeps Triton off on AMD, where it hangs GPUs that have no matrix cores.
        remedy = "" if torch.version.hip else remedy
        return Backend(name, False, reason.format(cuda=torch.version.cuda), remedy)
    reason = state["unavailable_reason"] or "It is not there"
    missing = name == "triton" and "No module" in reason
    return Backend(name, False, reason, _INSTALL_TRITON if missing else "")


def _operation(name: str, device: torch.device, others: list[str]) -> Operation:
    """others: the backends in use that have kernels of their own."""
    function, make = _CALLS[name]
    try:
        arguments = make(device)
        if function is None:
            backend, run = "torch", scaled_mm_v2
        else:
            backend = registry.get_capable_backend(function, arguments)
            run = registry.get_implementation(function, backend)
        if backend != "triton":  # it compiles for seconds; comfy-kitchen's word is enough
            run(**arguments)
            wait_for(device)
    except Exception as problem:  # a device says no by any type of exception
        return Operation(name, None, in_short(problem))
    reasons = [
        f"{other}: {registry.validate_backend_for_call(other, function, arguments).failure_reason}"
        for other in (others if backend == PLAIN else ())
    ]
    return Operation(name, backend, "; ".join(reasons))


def _emulated(device: torch.device) -> tuple[str, ...]:
    supported = {
        "fp8": comfy.model_management.supports_fp8_compute,
        "mxfp8": comfy.model_management.supports_mxfp8_compute,
        "nvfp4": comfy.model_management.supports_nvfp4_compute,
    }
    return tuple(name for name, supports in supported.items() if not supports(device))


def _matrix(device: torch.device) -> torch.Tensor:
    return torch.ones(32, 256, dtype=torch.bfloat16, device=device)


def _one(device: torch.device) -> torch.Tensor:
    return torch.ones((), device=device)


def _fp8_matmul(device: torch.device) -> dict:
    codes = _matrix(device).to(torch.float8_e4m3fn)
    scales = {"scale_a": _one(device), "scale_b": _one(device)}
    return {"input": codes, "weight": codes.t(), **scales, "out_dtype": torch.bfloat16}


def _int8_matmul(device: torch.device) -> dict:
    weight = torch.ones(32, 256, dtype=torch.int8, device=device)
    scale = torch.ones(32, 1, device=device)
    return {"x": _matrix(device), "weight": weight, "weight_scale": scale}


def _convrot_matmul(device: torch.device) -> dict:
    weight, scales = comfy_kitchen.quantize_convrot_w4a4_weight(_matrix(device))
    return {"x": _matrix(device), "qweight": weight, "wscales": scales}


def _nvfp4_matmul(device: torch.device) -> dict:
    codes, scales = comfy_kitchen.quantize_nvfp4(_matrix(device), _one(device))
    names = ("tensor_scale_a", "tensor_scale_b")
    tensor_scales = {name: _one(device) for name in names}
    blocks = {"block_scale_a": scales, "block_scale_b": scales}
    return {"a": codes, "b": codes, **tensor_scales, **blocks, "out_dtype": torch.bfloat16}


def _mxfp8_matmul(device: torch.device) -> dict:
    codes, scales = comfy_kitchen.quantize_mxfp8(_matrix(device))
    blocks = {"block_scale_a": scales, "block_scale_b": scales}
    return {"a": codes, "b": codes, **blocks, "out_dtype": torch.bfloat16}


def _rope(device: torch.device) -> dict:
    x = torch.ones(1, 2, 32, 64, dtype=torch.bfloat16, device=device)
    return {"x": x, "freqs_cis": torch.ones(1, 1, 32, 32, 2, 2, device=device)}


# For each: comfy-kitchen's function (None: PyTorch's own) and what makes its arguments.
_CALLS: dict[str, tuple[str | None, Callable[[torch.device], dict]]] = {
    "fp8 quantize": (
        "quantize_per_tensor_fp8",
        lambda device: {
            "x": _matrix(device),
            "scale": _one(device),
            "output_type": torch.float8_e4m3fn,
        },
    ),
    "fp8 matmul": (None, _fp8_matmul),
    "int8 matmul": ("int8_linear", _int8_matmul),
    "int4 matmul (ConvRot)": ("convrot_w4a4_linear", _convrot_matmul),
    "nvfp4 matmul": ("scaled_mm_nvfp4", _nvfp4_matmul),
    "mxfp8 matmul": ("scaled_mm_mxfp8", _mxfp8_matmul),
    "rotary embedding": ("apply_rope1", _rope),
}
