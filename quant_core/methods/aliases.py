"""Names that others give to methods: TorchAO through diffusers, bitsandbytes, Quanto, ModelOpt.

Files and workflows hold aliases, so none is ever removed or given another meaning.
"""

from __future__ import annotations

_FIRST = {
    "fp8": "fp8-dynamic",
    "diffsynth-fp8": "fp8-dynamic",
    "fp8-filtered": "fp8-weight-only",
    "8bit": "int8",
    "4bit": "int4",
    "int8wo": "int8",
    "int8_weight_only": "int8",
    "int8dq": "int8-dynamic",
    "int8_dynamic_activation_int8_weight": "int8-dynamic",
    "int4wo": "int4",
    "int4_weight_only": "int4",
    "float8wo": "fp8-e5m2",
    "float8wo_e4m3": "fp8-weight-only",
    "float8_weight_only": "fp8-weight-only",
    "float8dq": "fp8-dynamic",
    "float8dq_e4m3": "fp8-dynamic",
    "float8dq_e4m3_row": "fp8-dynamic",
    "float8_dynamic_activation_float8_weight": "fp8-dynamic",
}

_TORCHAO = {
    "int4dq": "int4-dynamic",
    "int8_dynamic_activation_int4_weight": "int4-dynamic",
    "int_a16w4": "int4",
    "int_a8w4": "int4-dynamic",
    "int_a16w8": "int8",
    "int_a8w8": "int8-dynamic",
    "float8sq": "fp8-static",
    "float8_static_activation_float8_weight": "fp8-static",
    "autoquant": "fastest",
    "float8wo_e5m2": "fp8-e5m2",
    "float8_e5m2_a16w8": "fp8-e5m2",
    "float8_e4m3_a16w8": "fp8-weight-only",
    "float_a16w8": "fp8-weight-only",
    "float_a8w8": "fp8-dynamic",
    "float8dq_tensor": "fp8-dynamic",
    "float8dq_row": "fp8-dynamic",
    "float8dq_e4m3_tensor": "fp8-dynamic",
    "float8_e4m3_tensor": "fp8-dynamic",
    "float8_e4m3_row": "fp8-dynamic",
    # torchao's uintx is affine in groups of 64, and its default is four bits.
    "uintx_weight_only": "int4-g64",
    **{f"uint{bits}wo": f"int{bits}" for bits in (1, 2, 3, 5, 6, 7)},
    **{f"uint_a16w{bits}": f"int{bits}" for bits in (1, 2, 3, 5, 6, 7)},
    "uint4wo": "int4-g64",
    "uint_a16w4": "int4-g64",
    # The exponent bits that diffusers takes where a name says none.
    "fp3": "fp3-e1m1",
    "fp5": "fp5-e2m2",
    "fp7": "fp7-e3m3",
    "float_a16w3": "fp3-e1m1",
    "float_a16w4": "fp4-e2m1",
    "float_a16w5": "fp5-e2m2",
    "float_a16w6": "fp6",
    "float_a16w7": "fp7-e3m3",
}

# The documents write fpX_eAwB for what TorchAO calls fpX_eAmB.
_FLOATX = {
    f"fp{bits}_e{exponent}{letter}{bits - 1 - exponent}": (
        f"fp{bits}-e{exponent}m{bits - 1 - exponent}"
    )
    for bits in range(3, 8)
    for exponent in range(1, bits)
    for letter in "mw"
}

_OTHERS = {
    # bitsandbytes
    "nf4-dq": "nf4-double",
    "fp4-dq": "fp4-double",
    "llm_int8": "llm.int8",
    # Quanto
    "float8": "fp8-weight-only",
    # NVIDIA ModelOpt: a weight alone, or WEIGHT_ACTIVATION
    "FP8": "fp8-weight-only",
    "INT8": "int8",
    "INT4": "int4",
    "NF4": "nf4",
    "NVFP4": "nvfp4-weight-only",
    "FP8_FP8": "fp8-dynamic",
    "INT8_INT8": "int8-dynamic",
    "INT4_INT8": "int4-dynamic",
    "NVFP4_NVFP4": "nvfp4",
    # vLLM-Omni
    "fp8_block": "fp8-block",
    # ComfyUI and the tools that write its files
    "int8_convrot": "int8-convrot",
    "convrot": "int8-convrot",
    "asym_w4a8_int8": "w4a8",
    "w4a8_int8": "w4a8",
    "w6a8_int8": "w6a8",
}

ALIASES: dict[str, str] = {**_FIRST, **_TORCHAO, **_FLOATX, **_OTHERS}

# What a name itself says of the granularity; it counts more than the argument.
GRANULARITY = {
    "float8dq_tensor": "per-tensor",
    "float8dq_row": "per-row",
    "float8dq_e4m3_tensor": "per-tensor",
    "float8dq_e4m3_row": "per-row",
    "float8_e4m3_tensor": "per-tensor",
    "float8_e4m3_row": "per-row",
}

NOTES = {
    "float8wo": "float8wo stores float8_e5m2, as in diffusers. float8wo_e4m3 rounds half as "
    "coarsely."
}

_PAIRS = (
    "{} cannot be computed: weights and activations of these types have no matmul in common. "
    "Choose FP8_FP8, INT8_INT8, INT4_INT8, NVFP4_NVFP4, or a weight type alone."
)
_TYPES = ("FP8", "INT8", "INT4", "NF4", "NVFP4")

# Names of others' methods that this pack does not support, each with the sentence for the error.
REFUSED = {
    "fpx_weight_only": "{} does not say how many bits. Write fp6_e3m2, or another fpX_eAmB with "
    "X = A + B + 1.",
    "float8dq_e5m2": "{} cannot be computed: FP8 matmuls of two e5m2 operands do not exist. "
    "Choose float8dq_e4m3, or float8wo_e5m2.",
    **{
        f"{weight}_{activation}": _PAIRS
        for weight in _TYPES
        for activation in _TYPES
        if f"{weight}_{activation}" not in ALIASES
    },
}
