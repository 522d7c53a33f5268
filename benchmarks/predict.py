"""What a step of FLUX.1 should take on GPUs that are not here, from what it asks them to do.

    python -m benchmarks.predict [--methods fp8-dynamic int8 ...]

ComfyUI's own transformer runs on tensors without values, at its full width, with our formats in its
layers. Every operation and kernel is counted with the bytes that pass the card's cache and its
FLOPs; an operation takes as long as the slower of the two. What that leaves out is what a GPU must
show: how much of its rates a matmul reaches is assumed, in the table of cards. Measured speeds of
``benchmarks.step`` stand beside where there are any. Run with GRAPHQUANT_COMFYUI naming a ComfyUI
folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn

from lab.comfyui import import_comfyui
from lab.fake_gpu import ADA, ADA_ON_WINDOWS, AMPERE, HOPPER, Gpu, Session, fake_gpu
from lab.gpu_trace import MIB, Operation
from lab.pack import load_pack
from lab.tiny_models import flux_module

from .flux_model import FULL, Size
from .four_bit_products import four_bit_linear, runs_in_four_bits
from .measuring import RESULTS, table, write

PLAIN = "bf16"
METHODS = ("fp8-dynamic", "int8-dynamic", "int8-convrot", "fp8-static", "fp8-weight-only", "int8")
METHODS += ("int4", "nf4", "nf4-fine", "w4a8", "svdquant-int4", "svdquant-nvfp4")
# What is aimed at, times as fast as bfloat16, eager.
TARGETS = {
    ("fp8-dynamic", "H100"): 1.40,
    ("int8-convrot", "RTX 4090"): 1.6,
    ("int8-convrot", "RTX 3090"): 1.7,
    **{(name, card): 0.97 for name in ("fp8-weight-only", "int8") for card in ("H100", "RTX 4090")},
    **{(name, card): 0.95 for name in ("int4", "nf4") for card in ("H100", "RTX 4090")},
}
LORA_RANK, MOST_LORA = 16, 0.03


@dataclass(frozen=True)
class Card:
    """bandwidth: bytes a second. rates: dense FLOPs a second of the vendor's sheet, with float32
    or int32 sums. reached: the share of them that the library's matmuls are assumed to reach, and
    of that ``by_kernel`` what a kernel of Triton's reaches. launch: seconds between two kernels;
    call: that the CPU takes to start one."""

    gpu: Gpu
    bandwidth: float
    rates: dict[str, float]
    reached: float
    by_kernel: float = 0.9
    launch: float = 1.5e-6
    call: float = 6e-6

    def seconds(self, operations: Sequence[Operation]) -> float:
        """Of all ``operations``, one after another."""
        busy = sum(self._seconds(op) for op in operations)
        return max(busy, self.call * len(operations))

    def _seconds(self, op: Operation) -> float:
        rate = self.rates["bf16" if op.kind == "attention" else op.kind] * self.reached
        rate *= self.by_kernel if op.name in ("product", "stored_linear", "scaled_mm") else 1.0
        return max(op.memory / self.bandwidth, op.flops / rate) + self.launch


def _rates(bf16: float, fp8: float, int8: float, fp32: float, **more: float) -> dict[str, float]:
    sheet = {"bf16": bf16, "fp8": fp8, "int8": int8, "fp32": fp32, **more}
    return {kind: rate * 1e12 for kind, rate in sheet.items()}


_BLACKWELL = replace(ADA, cache=96 * MIB, four_bits="nvfp4")
CARDS = {
    "H100": Card(HOPPER, 3.35e12, _rates(989, 1979, 1979, 67), 0.56),
    "RTX 4090": Card(ADA, 1.008e12, _rates(165, 330, 661, 83, int4=1321), 0.92),
    "RTX 5090": Card(_BLACKWELL, 1.792e12, _rates(209, 419, 838, 105, fp4=1676), 0.94),
    "RTX 3090": Card(AMPERE, 0.936e12, _rates(71, 71, 284, 36, int4=568), 0.88),
    "RTX 4090, Windows without Triton": Card(
        ADA_ON_WINDOWS, 1.008e12, _rates(165, 330, 661, 83, int4=1321), 0.92
    ),
}


def step_operations(
    gpu: Gpu, method: str, size: Size = FULL, rank: int = 0
) -> tuple[Operation, ...]:
    """What one call of the transformer starts. rank: of a LoRA on every quantized layer, 0 for
    none. Blocks are alike: two of each kind are traced, and the second counts for the others."""
    one = _traced(gpu, method, replace(size, double=1, single=1), rank)
    operations = list(one)
    for double, single, count in ((2, 1, size.double - 1), (1, 2, size.single - 1)):
        more = _traced(gpu, method, replace(size, double=double, single=single), rank)
        operations += count * _added(one, more)
    return tuple(operations)


def _added(one: Sequence[Operation], more: Sequence[Operation]) -> list[Operation]:
    """What ``more`` has beyond ``one``: a run in the middle of it."""
    same = next((i for i, (a, b) in enumerate(zip(one, more, strict=False)) if a != b), len(one))
    extra = len(more) - len(one)
    return list(more[same : same + extra])


def _traced(gpu: Gpu, method: str, size: Size, rank: int) -> list[Operation]:
    import comfy.ops

    operations = comfy.ops.disable_weight_init
    shapes = (size.inputs, size.hidden, size.double, size.single)
    where = {"dtype": torch.bfloat16, "operations": operations}
    plan = None
    if method != PLAIN:
        plan = planned(method, gpu, flux_module(*shapes, **where, device="meta"))
    with fake_gpu(gpu) as session, ExitStack() as stack, torch.inference_mode():
        for target, name, value in _stand_ins(session):
            stack.enter_context(patch.object(target, name, value))
        model = flux_module(*shapes, **where, device=gpu.device)
        if plan is not None:
            quantize(session, model, plan, rank)
        inputs, context = size.inputs, (1, size.inputs.context_length, size.inputs.context_width)
        latent = session.empty(1, *inputs.latent)
        time, pooled = session.empty(1), session.empty(1, inputs.pooled_width)
        before = len(session.trace.operations)
        model(latent, time, session.empty(*context), pooled, session.empty(1))
        return session.trace.operations[before:]


def planned(method: str, gpu: Gpu, model: nn.Module):
    """What the node would plan for ``model``, on the meta device."""
    from graphquant.quant_core.hardware import Hardware
    from graphquant.quant_core.planning.plan import plan_component

    hardware = Hardware("cuda", "a GPU", gpu.float8 is not None, gpu.triton)
    return plan_component(model, method, preset="flux1", hardware=hardware)


def quantize(session: Session, model: nn.Module, plan, rank: int) -> None:
    """Let the layers of ``plan`` compute in their formats."""
    for layer in plan.quantized:
        module = model.get_submodule(layer.name)
        fmt = layer.format.with_activation_maximum(1.0)
        weight = session.weight(fmt, layer.shape)
        run = partial(fmt.linear, weight=weight, bias=module.bias)
        if runs_in_four_bits(session, fmt):
            weight = session.weight(fmt.with_rank(fmt.rank + rank), layer.shape)
            run = partial(four_bit_linear, session, weight, module.bias)
        elif rank:
            up, down = session.empty(layer.shape[0], rank), session.empty(rank, layer.shape[1])
            run = partial(
                fmt.linear_with_low_rank, weight=weight, bias=module.bias, up=up, down=down
            )
        module.forward = run


def _stand_ins(session: Session) -> list[tuple]:
    """What ComfyUI's code asks of a real GPU, or leaves to libraries without fake tensors."""
    import comfy.ldm.flux.math
    import comfy.model_management
    import comfy.quant_ops

    def attention(q, k, v, heads, *_, **__):
        y = torch.empty_like(q)
        session.trace.kernel("attention", [q, k, v], [y], 4 * q.numel() * k.shape[-2], "attention")
        return y.transpose(1, 2).reshape(q.shape[0], -1, heads * q.shape[-1])

    def rope(q, k, frequencies):
        turned = torch.empty_like(q), torch.empty_like(k)
        session.trace.kernel("rope", [q, k, frequencies], turned)
        return turned

    return [
        (comfy.ldm.flux.math, "optimized_attention", attention),
        (comfy.quant_ops.ck, "apply_rope", rope),
        (comfy.model_management, "supports_fp64", lambda *_: True),
        (F, "scaled_dot_product_attention", attention),
    ]


def predict(
    methods: Sequence[str],
    cards: Sequence[str],
    on_method: Callable[[dict], None] = lambda results: None,
) -> dict:
    """Seconds of a step, and of one with a LoRA, by card and method; launches of a step. on_method:
    called with what there is after each."""
    results: dict = {"cards": {}}
    for name in cards:
        card, found = CARDS[name], results["cards"].setdefault(name, {})
        for method in (PLAIN, *methods):
            if method == "fp8-dynamic" and card.gpu.float8 is None:
                continue
            operations = step_operations(card.gpu, method)
            found[method] = {"seconds": card.seconds(operations), "launches": len(operations)}
            if method != PLAIN:
                with_lora = step_operations(card.gpu, method, rank=LORA_RANK)
                found[method]["with a LoRA"] = card.seconds(with_lora)
            on_method(results)
    return results


def speed(found: dict, method: str) -> float | None:
    """Times as fast as bfloat16."""
    return found[PLAIN]["seconds"] / found[method]["seconds"] if method in found else None


def lora_share(found: dict, method: str) -> float:
    """What a LoRA adds to a step, as a share of it."""
    return found[method]["with a LoRA"] / found[method]["seconds"] - 1


def missed_targets(results: dict) -> list[str]:
    """In words."""
    missed = []
    for (method, card), least in TARGETS.items():
        value = speed(results["cards"].get(card, {PLAIN: {"seconds": 0}}), method)
        if value is not None and value < least:
            missed.append(f"{method} on {card}: {value:.2f}, target {least:.2f}")
    for card, found in results["cards"].items():
        for method in found:
            if method != PLAIN and lora_share(found, method) > MOST_LORA:
                share = lora_share(found, method)
                missed.append(f"LoRA on {method}, {card}: {share:.1%}, target {MOST_LORA:.0%}")
    return missed


def measured() -> dict[str, float]:
    """Eager speeds of ``benchmarks.step`` on a GPU, by method."""
    file = RESULTS / "step_cuda.json"
    if not file.exists():
        return {}
    from .step import speeds

    return speeds(json.loads(file.read_text()), "eager")


def markdown(results: dict) -> str:
    cards, told = results["cards"], measured()
    methods = list(dict.fromkeys(name for found in cards.values() for name in found))
    rows = []
    for method in methods:
        row = [method]
        for found in cards.values():
            if method == PLAIN:
                row.append(f"{found[method]['seconds'] * 1e3:.0f} ms")
            else:
                value = speed(found, method) if method in found else None
                row.append(value and f"{value:.2f}, LoRA +{lora_share(found, method):.1%}")
        rows.append([*row, told.get(method)])
    head = ("method", *cards, "measured (benchmarks.step)")
    text = (
        "PREDICTED, NOT MEASURED: no GPU has run this. Times as fast as bfloat16, eager, for a "
        "step of FLUX.1 at 1024 x 1024, from counted bytes, FLOPs and launches; and what a LoRA "
        f"of rank {LORA_RANK} on every layer adds. See benchmarks/predict.py for what is assumed."
    )
    missed = missed_targets(results)
    last = "Targets missed: " + ("; ".join(missed) or "none") + "."
    return "\n".join([text, "", *table(head, rows), "", last, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--cards", nargs="+", default=list(CARDS), choices=CARDS)
    options = parser.parse_args()
    import_comfyui()
    load_pack()

    def keep(results: dict) -> None:
        write("predict", results, markdown(results), torch.device("cpu"))

    predict(options.methods, options.cards, keep)


if __name__ == "__main__":
    main()
