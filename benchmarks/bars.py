"""What must be fast, by the clock: each figure beside its bar; exit status 1 where one is missed.

    python -m benchmarks.bars

Run with GRAPHQUANT_COMFYUI naming a ComfyUI folder, on a machine that does nothing else. On a CPU:
a call's microseconds, and INT8 products beside bf16. On an H100 or H200 of 80 GB and more: a step,
a LoRA and quantizing, in minutes, 45 GiB of the GPU's memory and 90 of the computer's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from lab.comfyui import import_comfyui
from lab.pack import load_pack

from . import lora, quantize, step
from .layer_cases import PLAIN, layers
from .measuring import MIB, default_device, in_turn, table, use_threads

METHODS = ("fp8-dynamic", "fp8-weight-only", "int8", "int8-dynamic", "int4")
WANTED = (PLAIN, *METHODS)
MICROSECONDS, AS_LONG_AS_BF16 = 40.0, 1.2
GIGABYTES_A_SECOND = 5.0


@dataclass(frozen=True)
class Figure:
    """What was measured and its bar. most: the bar is the most that holds, otherwise the least."""

    what: str
    value: float
    bar: float
    most: bool = True

    @property
    def holds(self) -> bool:
        return self.value <= self.bar if self.most else self.value >= self.bar


@torch.inference_mode()
def call_figures() -> Iterator[Figure]:
    """Microseconds of a call of a loaded 64 x 64 layer beyond the plain layer's, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x = torch.ones(1, 16, 64, dtype=torch.bfloat16)
        built = {name: layer for name, layer in layers(64, 64, x.device) if name in WANTED}
        cases = {name: partial(layer, x) for name, layer in built.items()}
        seconds = in_turn(cases, 9, shortest=0.01)
    finally:
        torch.set_num_threads(threads)
    for method in METHODS:
        extra = (seconds[method] - seconds[PLAIN]) * 1e6
        yield Figure(f"{method}: microseconds a call", extra, MICROSECONDS)


@torch.inference_mode()
def int8_figures() -> Iterator[Figure]:
    """int8-dynamic beside F.linear in bf16, 1024 x 3072 by 3072 x 3072; none where the CPU does not
    multiply both in hardware."""
    from graphquant.quant_core.formats import Int8

    if not (torch.cpu._is_avx512_bf16_supported() and torch.cpu._is_vnni_supported()):
        return
    fmt, generator = Int8(activations="int8"), torch.Generator().manual_seed(0)
    weight = torch.randn(3072, 3072, generator=generator).mul_(0.02)
    stored, short, bias = fmt.quantize(weight), weight.bfloat16(), weight[0].clone()
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(1024, 3072, generator=generator).to(dtype)
        cases: dict[str, Callable[[], object]] = {
            "int8": partial(fmt.linear, x, stored, bias.to(dtype)),
            PLAIN: partial(F.linear, x.bfloat16(), short, bias.bfloat16()),
        }
        seconds = in_turn(cases, 5)
        what = f"int8-dynamic of {str(dtype).removeprefix('torch.')}: times as long as bf16"
        yield Figure(what, seconds["int8"] / seconds[PLAIN], AS_LONG_AS_BF16)


def gpu_figures(device: torch.device) -> Iterator[Figure]:
    """A step of a FLUX.1-sized model beside bf16's, a LoRA of rank 16, quantizing."""
    results = step.measure(step.METHODS, device, 3, tuple(step.COMPILED_BARS))
    for way, bars in step.SPEED_BARS.items():
        for method, bar in bars.items():
            what = f"{method}, {way}: times as fast as bf16"
            yield Figure(what, step.speeds(results, way)[method], bar, most=False)
    for method in ("fp8-dynamic", "int8"):
        overheads = lora.overheads(lora.measure((method,), (16,), device, 5), 16)
        yield Figure(f"{method}: a LoRA's share of a step", overheads[method], lora.BAR)
    for method in ("fp8-weight-only", "int8"):
        speed = quantize.measure(3072, 4, device, 5)[method]["gigabytes a second"]
        what = f"{method}: GB of bf16 quantized a second"
        yield Figure(what, speed, GIGABYTES_A_SECOND, most=False)


def figures(device: torch.device) -> Iterator[Figure]:
    """All that this machine has bars for."""
    if device.type == "cpu":
        yield from call_figures()
        yield from int8_figures()
    elif is_large_hopper(device):
        yield from gpu_figures(device)


def is_large_hopper(device: torch.device) -> bool:
    total = torch.cuda.get_device_properties(device).total_memory
    return torch.cuda.get_device_capability(device) == (9, 0) and total >= 70 * 1024 * MIB


def markdown(found: list[Figure]) -> str:
    rows = [
        (f.what, f.value, f"{'<=' if f.most else '>='} {f.bar:g}", "" if f.holds else "missed")
        for f in found
    ]
    return "\n".join(table(("figure", "measured", "bar", ""), rows))


def main() -> int:
    device = default_device()
    use_threads(device)
    import_comfyui()
    load_pack()
    found = list(figures(device))
    print(markdown(found) if found else "There are bars for a CPU, and for an H100 or H200.")
    return 0 if all(figure.holds for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main())
