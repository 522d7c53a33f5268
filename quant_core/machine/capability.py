"""How each method runs on a machine (natively, emulated, as another, not at all), found by trying.

No table of versions decides: a small layer is quantized and multiplied in each format, on the
device, and compared. Tables only turn what was found into advice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import torch
import torch.nn.functional as F

from ..formats import Format
from ..hardware import Hardware, fp8_matmul_problem, get_recommended_method, hardware_of, in_short
from ..methods import MEASURED, METHODS, method_for

NATIVE, EMULATED, FALLBACK, REFUSED = "native", "emulated", "fallback", "refused"

# What stores nothing, and what only a measurement completes.
_NO_KERNEL = ("none", *MEASURED)
_SHAPE, _ROWS = (64, 128), 32
_TOLERANCE = 0.15
_PACKAGES = ("torchao", "triton", "triton-windows")
_FIRST_FP8 = (8, 9)


@dataclass(frozen=True)
class Machine:
    """A device and the software that is installed for it.

    vendor: nvidia, amd, apple, intel, cpu, or PyTorch's device type. architecture: "8.9", "gfx942",
    or None. versions: by package.
    """

    hardware: Hardware
    vendor: str
    architecture: str | None
    versions: dict[str, str]


@dataclass(frozen=True)
class MethodCapability:
    """One method on one machine.

    status: NATIVE (as its name says), EMULATED (the same numbers, but dequantized and multiplied
    in full precision), FALLBACK (another method, ``runs_as``, is planned instead) or REFUSED.
    kernel: what multiplies. reason, remedy: sentences, empty where there is nothing to say.
    """

    method: str
    status: str
    runs_as: str
    kernel: str
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Capability:
    """What every method is on one machine, and the method recommended for it."""

    machine: Machine
    methods: tuple[MethodCapability, ...]
    recommended: str

    @property
    def fp8_supported(self) -> bool:
        """Whether the device multiplies FP8 by FP8 in hardware."""
        return self.machine.hardware.fp8_matmul

    @property
    def running(self) -> tuple[str, ...]:
        """The methods that run as themselves, native or emulated."""
        return tuple(m.method for m in self.methods if m.status in (NATIVE, EMULATED))

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {**asdict(self), "fp8_supported": self.fp8_supported}


def examine(device: torch.device, compiled_int8: bool = False) -> Capability:
    """Tries every method on ``device``. It raises nothing: what goes wrong is part of the
    answer. compiled_int8: as in ``hardware_of``."""
    machine = machine_of(device, compiled_int8)
    return Capability(
        machine,
        tuple(examine_method(name, device, machine) for name in METHODS if name not in _NO_KERNEL),
        get_recommended_method(machine.hardware),
    )


def machine_of(device: torch.device, compiled_int8: bool = False) -> Machine:
    """The vendor and architecture of ``device``, and the versions of what is installed.
    compiled_int8: as in ``hardware_of``."""
    vendor, architecture = _identify(device)
    versions = {"torch": torch.__version__}
    for name, found in (("CUDA", torch.version.cuda), ("ROCm", torch.version.hip)):
        if found:
            versions[name] = found
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Machine(hardware_of(device, compiled_int8), vendor, architecture, versions)


def _identify(device: torch.device) -> tuple[str, str | None]:
    if device.type != "cuda":
        return {"mps": "apple", "xpu": "intel"}.get(device.type, device.type), None
    if torch.version.hip:
        return "amd", torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
    return "nvidia", "{}.{}".format(*torch.cuda.get_device_capability(device))


def examine_method(name: str, device: torch.device, machine: Machine) -> MethodCapability:
    """Tries the method ``name`` on ``device``."""
    chosen, fallback = method_for(name, machine.hardware)
    fmt = chosen.choose(_SHAPE, "per-row").format
    kernel = fmt.kernel(device)
    problem = linear_problem(fmt, device)
    recommended = get_recommended_method(machine.hardware)
    if problem is not None:
        itself = "This PyTorch does not run here: install one that is built for the device."
        remedy = itself if chosen.name == recommended else f"Use {recommended}."
        return MethodCapability(name, REFUSED, chosen.name, kernel, problem, remedy)
    if fallback is not None:
        reason = fp8_matmul_problem(device) or fallback
        return MethodCapability(name, FALLBACK, chosen.name, kernel, reason, fp8_remedy(machine))
    if fmt.activations and kernel == Format.kernel(fmt, device):
        reason = f"PyTorch has no such matmul on {machine.hardware.name}."
        remedy = f"Use {chosen.weight_only}: as fast here, and it never rounds activations."
        return MethodCapability(name, EMULATED, chosen.name, kernel, reason, remedy)
    slow = machine.hardware.speed_problem(fmt.product_kind)
    if slow is not None:
        reason, _, remedy = slow.partition(". ")
        return MethodCapability(name, NATIVE, chosen.name, kernel, f"{reason}.", remedy)
    return MethodCapability(name, NATIVE, chosen.name, kernel)


def linear_problem(fmt: Format, device: torch.device) -> str | None:
    """Why a layer in ``fmt`` does not run on ``device``, in words; None where it does."""
    try:
        error = _linear_error(fmt, device)
    except Exception as problem:  # a device says no by any type: RuntimeError, TypeError (MPS) ...
        return in_short(problem)
    return None if error < _TOLERANCE else f"It computes wrong numbers, {error:.0%} off."


def _linear_error(fmt: Format, device: torch.device) -> float:
    """Relative L2 of a layer against the same weights dequantized; float32 in and out."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(_SHAPE, generator=generator).to(device)
    x = torch.randn(_ROWS, _SHAPE[1], generator=generator).to(device)
    stored = fmt.quantize(weight)
    expected = F.linear(x, stored.dequantize(torch.float32))
    return ((fmt.linear(x, stored, None) - expected).norm() / expected.norm()).item()


def fp8_remedy(machine: Machine) -> str:
    """What a user can do where FP8 matmuls do not run."""
    use = "Use int8, which rounds least, or fp8-weight-only: the same memory."
    if machine.vendor == "nvidia":
        if _compute_capability(machine) < _FIRST_FP8:
            return f"FP8 matmuls need compute capability 8.9 (RTX 40, L4, H100) or newer. {use}"
        return f"The GPU has FP8 tensor cores: install a PyTorch for CUDA 13 (cu130). {use}"
    if machine.vendor == "amd":
        return f"FP8 matmuls need MI300, RX 9000 or newer and a PyTorch that uses them. {use}"
    return use


def _compute_capability(machine: Machine) -> tuple[int, ...]:
    return tuple(map(int, machine.architecture.split(".")))
