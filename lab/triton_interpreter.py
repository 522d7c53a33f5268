"""What Triton 3.6's interpreter computes otherwise than a GPU, mended for tests."""

from __future__ import annotations

import torch

TYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8e4nv": torch.float8_e4m3fn,
    "fp8e5": torch.float8_e5m2,
}
BITS = {8: torch.uint8, 16: torch.uint16, 32: torch.uint32}


def exact_casts(monkeypatch):
    """Triton 3.6's interpreter cuts bits off where a GPU rounds to nearest, multiplies bfloat16 as
    the integers that numpy holds it in, and takes no range up to an argument with numpy 2.4."""
    import triton.language as tl
    from triton.runtime import interpreter

    def convert(values, source, target, rounding=None):
        numbers = torch.from_numpy(values.copy()).view(TYPES[source.name])
        return numbers.to(TYPES[target.name]).view(BITS[target.primitive_bitwidth]).numpy()

    def dot(builder, a, b, *rest):
        return multiply(builder, *(wide(x) if x.dtype == tl.bfloat16 else x for x in (a, b)), *rest)

    def wide(x):
        values = convert(x.data, tl.bfloat16, tl.float32).view("float32")
        return interpreter.TensorHandle(values, tl.float32)

    def patch_tensor(tensor, scope):
        patched(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    patched = interpreter._patch_lang_tensor
    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch_tensor)
    multiply = interpreter.InterpreterBuilder.create_dot
    monkeypatch.setattr(interpreter, "_convert_float", convert)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", dot)
